import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from oprd.core.layers import LayerPair
from oprd.core.objective import STATE_LOSSES, make_loss
from oprd.core.states import gram
from oprd.core.states.comparison import LayerComparison
from oprd.core.states.gram import GramDistance
from oprd.core.states.loss import Sequences
from tests.core.output.test_divergence import LargestTensor
from tests.core.states.one_layer import representation_loss
from tests.core.states.test_distance import MASK
from tests.reference.gram import gram_loss

STUDENT, TEACHER = 7, 4
N = int(MASK.sum())


def states(seed=0, dtype=torch.float64, mask=MASK, widths=(STUDENT, TEACHER)):
    """Of two widths; masked rows are NaN."""
    generator = torch.Generator().manual_seed(seed)
    both = [torch.randn(*mask.shape, width, generator=generator) for width in widths]
    return [
        state.masked_fill(~mask[..., None], torch.nan).to(dtype).requires_grad_() for state in both
    ]


@pytest.fixture(params=[gram.TILE_ELEMENTS, 1, 11], ids=["whole", "row by row", "two rows"])
def tiles(request, monkeypatch):
    monkeypatch.setattr(gram, "TILE_ELEMENTS", request.param)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("reduction", ["sequence", "token"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-7), (torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)],
)
def test_value_and_gradient_are_those_of_the_definition(reduction, dtype, tolerance):
    student, teacher = states(dtype=dtype)
    total, count = representation_loss(student, teacher, MASK, GramDistance(), reduction=reduction)
    (gradient,) = torch.autograd.grad(3 * total, student)
    expected, expected_count = gram_loss(student, teacher, MASK, reduction)
    (expected_gradient,) = torch.autograd.grad(3 * expected, student)
    assert total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert (gradient.dtype, count) == (dtype, expected_count)
    # The value is computed in float32 whatever the states' dtype.
    torch.testing.assert_close(total.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=tolerance, atol=tolerance * 1e-2)


@pytest.mark.usefixtures("tiles")
def test_gradients_agree_with_finite_differences_whatever_weights_the_rows_have():
    student, teacher = (state[MASK].detach() for state in states())
    weights = torch.linspace(-1, 2, N, dtype=torch.float64)

    def weighted(rows):
        return GramDistance()(rows, teacher, Sequences(MASK)).distance * weights

    student.requires_grad_()
    assert torch.autograd.gradcheck(weighted, (student,))
    assert torch.autograd.gradcheck(lambda rows: weighted(rows).sum(), (student,))


def test_the_values_do_not_change_when_either_models_states_are_turned_or_scaled():
    student, teacher = states()
    total, _ = representation_loss(student, teacher, MASK, GramDistance())
    generator = torch.Generator().manual_seed(1)
    turned = []
    for state, width in ((student, STUDENT), (teacher, TEACHER)):
        turn = torch.linalg.qr(torch.randn(width, width, generator=generator).double()).Q
        turned.append(5 * state @ turn)
    torch.testing.assert_close(representation_loss(*turned, MASK, GramDistance()).total, total)


def test_a_teacher_that_is_the_student_turned_into_a_wider_space_has_no_loss():
    student, _ = states(dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    wider = torch.linalg.qr(torch.randn(12, STUDENT, generator=generator)).Q
    total, _ = representation_loss(student, student @ wider.T, MASK, GramDistance())
    assert total < 1e-12


def test_a_sequence_of_one_row_has_no_loss_and_no_gradient():
    student, teacher = states()
    alone = torch.zeros_like(MASK)
    alone[0, 0] = True
    total, count = representation_loss(student, teacher, alone, GramDistance())
    (gradient,) = torch.autograd.grad(total, student)
    assert count == 1
    assert total < 1e-30 and gradient.abs().max() < 1e-15


@pytest.mark.parametrize("side", [0, 1])
def test_a_nan_in_a_row_reaches_its_own_sequence_alone(side):
    student, teacher = (state[MASK].detach() for state in states())
    (student, teacher)[side][0, 0] = torch.nan  # the first of three rows of the first sequence
    found = GramDistance()(student, teacher, Sequences(MASK)).distance
    assert found.isnan().tolist() == [True] * 3 + [False] * 6


def test_a_zero_row_is_at_right_angles_to_all_and_gets_no_gradient():
    student, teacher = states()
    with torch.no_grad():
        student[0, 0] = 0
        teacher[3, 1] = 0
    total, _ = representation_loss(student, teacher, MASK, GramDistance())
    (gradient,) = torch.autograd.grad(total, student)
    torch.testing.assert_close(total, gram_loss(student, teacher, MASK, "sequence")[0])
    assert gradient.isfinite().all() and not gradient[0, 0].any() and gradient[3, 1].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_teacher_of_another_dtype_is_read_in_the_students(dtype):
    student, teacher = states(dtype=torch.float32)
    expected = representation_loss(student, teacher.to(dtype).float(), MASK, GramDistance())
    found = representation_loss(student, teacher.to(dtype), MASK, GramDistance())
    assert torch.equal(found.total, expected.total)


def test_nothing_longer_than_a_tile_is_formed_and_nothing_but_rows_is_kept(monkeypatch):
    mask = torch.ones(2, 64, dtype=torch.bool)
    student, teacher = (state[mask] for state in states(mask=mask))
    monkeypatch.setattr(gram, "TILE_ELEMENTS", 4 * 64)
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), LargestTensor() as record:
        values = GramDistance()(student, teacher, Sequences(mask)).distance
    assert {tuple(tensor.shape) for tensor in kept} == {(128, STUDENT), (128, TEACHER)}
    with record:
        values.sum().backward()
    # 128 rows of 7, where one sequence's matrix would have 64 × 64 elements.
    assert record.largest == 128 * STUDENT


def test_all_layers_share_one_wait_for_the_lengths(monkeypatch):
    asked = []
    summed = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: asked.append(1) or summed(self))
    student, teacher = (state[MASK] for state in states())
    pairs = tuple(LayerPair(layer, layer) for layer in (1, 2, 3))
    comparison = LayerComparison({p.teacher: teacher for p in pairs}, pairs, MASK, GramDistance())
    for pair in pairs:
        comparison(pair.student, student)
    assert len(asked) == 1
    assert comparison.result().cosine is None


def test_a_row_without_direction_has_a_cosine_of_zero_with_any_other():
    rows = torch.ones(2, 1)
    found = GramDistance()(torch.tensor([[1e-14], [1.0]]), rows, Sequences(torch.ones(1, 2) > 0))
    assert found.cosine.tolist() == [0, 1]


def test_it_takes_no_parameters():
    assert make_loss(STATE_LOSSES, "gram", {}, "state_loss") == GramDistance()
    with pytest.raises(ValueError, match="'gram' takes no parameters, got 'unit_length'"):
        make_loss(STATE_LOSSES, "gram", {"unit_length": True}, "state_loss")
