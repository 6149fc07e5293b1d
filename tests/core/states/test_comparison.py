import pytest
import torch

from oprd.core.layers import LayerPair
from oprd.core.objective import STATE_LOSSES
from oprd.core.states.comparison import LayerComparison
from oprd.core.states.distance import SquaredDistance
from oprd.core.states.loss import with_statistics
from tests.core.states.one_layer import representation_loss
from tests.core.states.test_distance import MASK, states
from tests.reference import representation as reference


def test_layers_are_averaged_and_the_teachers_rows_released():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (
        {layer: torch.randn(4, 5, 6, generator=generator) for layer in (1, 2, 3)} for _ in range(2)
    )
    # Two student layers meet one teacher layer, as they do where the teacher is shallower.
    pairs = (LayerPair(1, 1), LayerPair(2, 1), LayerPair(3, 3))
    expected = torch.stack(
        [representation_loss(student[p.student], teacher[p.teacher], MASK).total for p in pairs]
    ).mean()
    selected = {layer: states[MASK] for layer, states in teacher.items()}
    comparison = LayerComparison(selected, pairs, MASK)
    for layer in (1, 2, 3):
        comparison(layer, student[layer][MASK])
    assert set(selected) == {2}
    result = comparison.result()
    torch.testing.assert_close(result.loss.total, expected)
    assert result.loss.count == 3
    cosine = torch.cosine_similarity(student[2][MASK], teacher[1][MASK], dim=-1).sum()
    torch.testing.assert_close(result.cosine[1], cosine)


def test_a_layer_that_was_not_reached_is_an_error():
    pairs = (LayerPair(1, 1), LayerPair(2, 2))
    rows = {1: torch.ones(9, 4), 2: torch.ones(9, 4)}
    comparison = LayerComparison(rows, pairs, MASK)
    comparison(1, torch.ones(9, 4))
    with pytest.raises(KeyError):
        comparison.result()


@pytest.mark.parametrize("loss", [kind() for kind in STATE_LOSSES.values()])
@pytest.mark.parametrize("counts", [(8, 9), (9, 8), (8, 8), (10, 10)])
def test_rows_without_a_partner_are_refused(loss, counts):
    student, teacher = (torch.ones(count, 4) for count in counts)
    comparison = LayerComparison({3: teacher}, (LayerPair(2, 3),), MASK, loss)
    message = rf"layer 2 has {counts[0]} student rows for {counts[1]} teacher rows \(layer 3\) at 9"
    with pytest.raises(ValueError, match=message):
        comparison(2, student)


def test_states_in_float64_are_weighed_in_float64():
    student, teacher = states(dtype=torch.float64)
    total, _ = representation_loss(student, teacher, MASK)
    expected, _ = reference.representation_loss(student, teacher, MASK, False, "sequence")
    torch.testing.assert_close(total, expected, rtol=1e-14, atol=0)


def test_no_pair_is_refused():
    with pytest.raises(ValueError, match="no layer pair"):
        LayerComparison({}, (), MASK)


def test_positions_are_weighed_by_divergence_within_sequences_alone():
    pairs = (LayerPair(1, 1),)
    with pytest.raises(ValueError, match="by divergence within sequences alone"):
        LayerComparison({}, pairs, MASK, reduction="token", by_divergence=True)


class FirstColumns(SquaredDistance):
    """The first columns of either model, however wide it is."""

    equal_widths = False

    def __call__(self, student, teacher, sequences):
        distance = (student[:, :2] - teacher[:, :2].detach()).square().mean(dim=1)
        return with_statistics(distance, student, teacher)


def test_models_of_unequal_width_have_norms_and_no_cosine():
    teacher, student = {1: torch.ones(9, 4)}, torch.full((9, 3), 2.0)
    comparison = LayerComparison(teacher, (LayerPair(1, 1),), MASK, FirstColumns())
    comparison(1, student)
    result = comparison.result()
    assert result.loss.total.item() == pytest.approx(3)  # one for each sequence with a position
    assert result.cosine is None
    assert result.teacher_norm.tolist() == [18]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_are_those_of_the_fused_loss(dtype):
    student, teacher = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    student[0] = 0
    fused = SquaredDistance()(student, teacher, None)
    plain = with_statistics(fused.distance, student, teacher)
    for name in ("cosine", "student_norm", "teacher_norm"):
        torch.testing.assert_close(getattr(plain, name), getattr(fused, name), rtol=1e-4, atol=1e-5)
