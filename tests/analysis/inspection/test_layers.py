import pytest
import torch

from oprd.analysis.inspection.layers import effective_rank, layer_figures, mean_cosine, mean_size
from oprd.core.layers import LayerPair


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(400, 6), (6, 400)])
def test_the_effective_rank_is_its_definition(shape):
    states = rows(*shape) * torch.linspace(1, 3, shape[1]) + 5
    centred = states.double() - states.double().mean(dim=0)
    values = torch.linalg.svdvals(centred) ** 2
    shares = values / values.sum()
    expected = float((-(shares * shares.clamp(min=1e-300).log()).sum()).exp())
    assert effective_rank(states) == pytest.approx(expected, rel=1e-6)


def test_directions_of_equal_variance_count_one_each():
    two = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]) + 7
    assert effective_rank(two) == pytest.approx(2)
    assert effective_rank(torch.ones(5, 3)) == 0


def test_the_size_is_a_root_mean_square():
    assert mean_size(torch.tensor([[3.0, 4.0]])) == pytest.approx(12.5**0.5)


def test_the_cosine_is_the_mean_over_rows_and_none_for_other_widths():
    ours = torch.tensor([[1.0, 0], [0, 2]])
    theirs = torch.tensor([[2.0, 0], [1, 0]])
    assert mean_cosine(ours, theirs) == pytest.approx(0.5)
    assert mean_cosine(ours, torch.ones(2, 3)) is None


def test_each_pair_has_its_own_figures():
    student = {1: rows(50, 4), 2: rows(50, 4, seed=1)}
    teacher = {1: 2 * student[1], 3: rows(50, 4, seed=2)}
    similarity = torch.arange(6.0).reshape(2, 3)
    first, second = layer_figures(student, teacher, [LayerPair(1, 1), LayerPair(2, 3)], similarity)
    assert (first["student"], first["teacher"], first["cka"]) == (1, 1, 0)
    assert (second["student"], second["teacher"], second["cka"]) == (2, 3, 5)
    assert first["cosine"] == pytest.approx(1)
    assert first["size"]["teacher"] == pytest.approx(2 * first["size"]["student"])
    assert first["effective_rank"]["teacher"] == pytest.approx(first["effective_rank"]["student"])
    assert second["cosine"] == pytest.approx(mean_cosine(student[2], teacher[3]))
