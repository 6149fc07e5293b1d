"""Debiased CKA against its definition, and what it promises."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oprd.core import cka
from oprd.core.cka import debiased_cka
from tests.reference.similarity import debiased_cka as naive
from tests.reference.similarity import hsic, hsic_over_quadruples


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def related(count=60, width=8, other=5, noise=0.5, seed=0):
    """Rows of a layer, and those of another that partly follow from them."""
    x = rows(count, width, seed=seed)
    return x, x @ rows(width, other, seed=seed + 1) + noise * rows(count, other, seed=seed + 2)


def one(x, y):
    return debiased_cka([x], [y]).item()


def test_the_reference_is_the_mean_over_quadruples_of_different_rows():
    x, y = related(6, 3, 2)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    assert hsic(k, l).item() == pytest.approx(hsic_over_quadruples(k, l), rel=1e-10)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(4, 30), st.integers(1, 9), st.integers(1, 9), st.integers(1, 31), st.integers(0, 99)
)
def test_every_pair_of_layers_has_the_value_of_its_definition(count, width, other, block, seed):
    ours = [rows(count, width, seed=seed + layer) for layer in range(3)]
    theirs = [related(count, width, other, seed=seed + layer)[1] for layer in range(4)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cka, "BLOCK_ROWS", block)
        found = debiased_cka(ours, theirs)
    assert found.dtype == torch.float64
    for i, x in enumerate(ours):
        for j, y in enumerate(theirs):
            assert found[i, j].item() == pytest.approx(naive(x, y).item(), abs=1e-9)


def test_identical_layers_are_at_1_and_no_others():
    layers = [related(seed=seed)[1] for seed in range(4)]
    found = debiased_cka(layers, layers)
    torch.testing.assert_close(found.diagonal(), torch.ones(4, dtype=torch.float64))
    assert (found - torch.eye(4)).abs().max() < 0.999
    torch.testing.assert_close(found, found.T)


def test_independent_rows_are_at_0_on_average_in_any_number_of_dimensions():
    # Biased CKA of 40 rows in 200 dimensions is about 0.8.
    found = torch.tensor(
        [one(rows(40, 200, seed=n), rows(40, 100, seed=1000 + n)) for n in range(100)]
    )
    assert found.mean().abs() < 4 * found.std() / math.sqrt(len(found))
    assert found.abs().max() < 0.2


def test_a_rotation_a_scale_and_a_shift_change_nothing():
    x, y = related()
    turn, _ = torch.linalg.qr(rows(5, 5, seed=9))
    expected = one(x, y)
    assert 0.3 < expected < 0.99
    assert one(x, y @ turn) == pytest.approx(expected, rel=1e-10)
    assert one(1e6 * x, 1e-6 * y) == pytest.approx(expected, rel=1e-10)
    assert one(x + 1e4, y - 1e4) == pytest.approx(expected, rel=1e-6)
    # Another map than a rotation does.
    assert abs(one(x, y * torch.tensor([10.0, 1, 1, 1, 1])) - expected) > 0.01


def test_the_order_of_rows_changes_nothing_as_long_as_they_stay_together():
    x, y = related()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    assert one(x[order], y[order]) == pytest.approx(one(x, y), rel=1e-10)
    assert abs(one(x[order], y)) < 0.2


def test_widths_and_depths_may_differ():
    x = [rows(20, 3), rows(20, 3, seed=1)]
    assert debiased_cka(x, [rows(20, 70, seed=n) for n in range(5)]).shape == (2, 5)


def test_one_row_that_is_a_thousand_times_longer_keeps_its_digits():
    x, y = related()
    x[3] *= 1e4
    y[3] *= 1e3
    assert one(x, y) == pytest.approx(naive(x - x.mean(0), y - y.mean(0)).item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rows_of_lower_precision_are_multiplied_in_float64(dtype):
    x, y = (side.to(dtype) for side in related())
    assert one(x, y) == pytest.approx(naive(x, y).item(), abs=1e-9)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (rows(3, 4), rows(3, 4), r"at least 4, got \[3\]"),
        (rows(5, 4), rows(6, 4), r"the same rows of each layer, at least 4, got \[5, 6\]"),
        (rows(1, 4).expand(9, 4), rows(9, 4), "student layer 1 is the same vector in all 9 rows"),
        (rows(9, 4), 0.1 + torch.zeros(9, 4), "teacher layer 1 is the same vector in all 9 rows"),
        # Their distances say nothing: all are alike.
        (torch.eye(6), rows(6, 4), "student layer 1 .* or all rows are equally far apart"),
    ],
)
def test_rows_that_can_be_like_nothing_are_refused(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        debiased_cka([student], [teacher])
