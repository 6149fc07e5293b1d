"""The dynamic programme against every monotone choice there is."""

from fractions import Fraction
from itertools import combinations_with_replacement

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oprd.core.monotone import monotone_columns


def every_choice(rows, near):
    """(sum, −distance) of every monotone choice, by choice; sums of the decimal numbers."""
    choices = combinations_with_replacement(range(len(rows[0])), len(rows))
    return {
        choice: (
            sum(Fraction(str(row[column])) for row, column in zip(rows, choice, strict=True)),
            -sum(abs(column - wanted) for column, wanted in zip(choice, near, strict=True)),
        )
        for choice in choices
    }


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_no_monotone_choice_has_a_higher_sum_or_is_nearer_at_the_same(count, width, data):
    # Few values, so that ties are common; tenths, so that sums of floats would round.
    entries = st.integers(-3, 3).map(lambda tenths: tenths / 10)
    row = st.lists(entries, min_size=width, max_size=width)
    rows = data.draw(st.lists(row, min_size=count, max_size=count))
    near = data.draw(st.lists(st.integers(0, width - 1), min_size=count, max_size=count))
    found = monotone_columns(rows, near)
    worth = every_choice(rows, near)
    assert worth[tuple(found)] == max(worth.values())


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.randoms(use_true_random=False))
def test_any_real_numbers_are_summed_exactly(count, width, random):
    rows = [[random.uniform(-1, 1) for _ in range(width)] for _ in range(count)]
    worth = every_choice(rows, [0] * count)
    assert worth[tuple(monotone_columns(rows, [0] * count))][0] == max(w for w, _ in worth.values())


@pytest.mark.parametrize(
    ("rows", "near", "expected"),
    [
        # The best of each row where that never steps back.
        ([[9, 1, 1], [1, 1, 9]], [0, 0], [0, 2]),
        # Crossing partners: one of them gives way.
        ([[1, 1, 9], [5, 1, 1]], [0, 0], [2, 2]),
        ([[1, 1, 5], [9, 1, 1]], [0, 0], [0, 0]),
        # All alike: what is preferred, and where that steps back, as near as can be.
        ([[1, 1, 1]] * 3, [0, 1, 2], [0, 1, 2]),
        ([[1, 1, 1]] * 2, [2, 0], [0, 0]),
        # As near below as above: the lower one.
        ([[5, 1, 5]], [1], [0]),
        ([[7]] * 3, [0, 0, 0], [0, 0, 0]),
        # 0.1 + 0.2 and 0.15 + 0.15 are alike as they are written, though not as floats.
        ([[0.1, 0.15], [0.2, 0.15]], [1, 1], [1, 1]),
    ],
)
def test_choices_that_one_can_follow_by_hand(rows, near, expected):
    assert monotone_columns(rows, near) == expected


def test_forty_rows_choose_among_sixty_columns():
    # There are 10^28 monotone choices.
    rows = torch.rand(40, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = monotone_columns(rows.tolist(), list(range(40)))
    assert found == sorted(found) and len(found) == 40
    greedy = torch.stack([row.max() for row in rows]).sum()
    chosen = sum(rows[n, column] for n, column in enumerate(found))
    assert 0.8 * greedy < chosen <= greedy
