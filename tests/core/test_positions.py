import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oprd.core.positions import select_positions

MASK = torch.tensor(
    [
        [1, 1, 1, 1, 1, 0, 0],
        [0, 1, 0, 1, 1, 0, 1],
        [1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]
)


def chosen(selected: torch.Tensor) -> list[list[int]]:
    return [row.nonzero().flatten().tolist() for row in selected]


@pytest.mark.parametrize(
    ("spec", "k", "expected"),
    [
        ("all", None, [[0, 1, 2, 3, 4], [1, 3, 4, 6], [0], []]),
        ("last", None, [[4], [6], [0], []]),
        ("first_k", 2, [[0, 1], [1, 3], [0], []]),
        ("last_k", 2, [[3, 4], [4, 6], [0], []]),
        ("last_k", 100, [[0, 1, 2, 3, 4], [1, 3, 4, 6], [0], []]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.float32])
def test_positions_are_chosen_among_the_true_entries(spec, k, expected, dtype):
    selected = select_positions(MASK.to(dtype), spec, k)
    assert selected.dtype == torch.bool
    assert chosen(selected) == expected


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1), st.integers(1, 8))
def test_last_k_mirrors_first_k(rows, k):
    mask = torch.tensor(rows)
    last = select_positions(mask, "last_k", k)
    assert torch.equal(last, select_positions(mask.flip(1), "first_k", k).flip(1))
    assert torch.equal(last.sum(1), mask.sum(1).clamp(max=k))
    assert not (last & ~mask).any()


@pytest.mark.parametrize("k", [None, 0, -3])
@pytest.mark.parametrize("spec", ["first_k", "last_k"])
def test_a_missing_or_impossible_k_is_refused(spec, k):
    with pytest.raises(ValueError, match="needs k of at least 1"):
        select_positions(MASK, spec, k)


def test_an_unknown_specification_is_refused():
    with pytest.raises(ValueError, match="'middle'"):
        select_positions(MASK, "middle")


def test_a_mask_of_one_dimension_is_refused():
    with pytest.raises(ValueError, match=r"\[B, K\]"):
        select_positions(MASK[0], "all")
