"""What holds of every state loss of the table."""

import pytest
import torch

from oprd.core.objective import STATE_LOSSES
from tests.core.states.one_layer import representation_loss
from tests.core.states.test_distance import MASK, states

all_losses = pytest.mark.parametrize("loss", [kind() for kind in STATE_LOSSES.values()])
all_reductions = pytest.mark.parametrize("reduction", ["sequence", "token"])
all_weights = pytest.mark.parametrize(
    "weights", [{"reduction": "sequence"}, {"reduction": "token"}, {"by_divergence": True}]
)


def value_and_gradient(loss, student, teacher, mask=MASK, **options):
    student = student.detach().clone().requires_grad_()
    total, _ = representation_loss(student, teacher, mask, loss, **options)
    return total.detach(), *torch.autograd.grad(total, student)


@all_losses
def test_identical_states_have_no_loss_and_no_gradient(loss):
    student, _ = states()
    total, gradient = value_and_gradient(loss, student, student.detach().clone())
    assert total == 0
    assert not gradient.any()


@all_losses
def test_no_gradient_reaches_the_teacher(loss):
    student, teacher = states()
    representation_loss(student, teacher, MASK, loss).total.backward()
    assert student.grad is not None and student.grad.any()
    assert teacher.grad is None


@all_losses
def test_a_small_step_along_the_gradient_brings_the_student_nearer(loss):
    student, teacher = states(dtype=torch.float64)
    before, gradient = value_and_gradient(loss, student, teacher)
    after, _ = value_and_gradient(loss, student - 1e-3 * gradient, teacher)
    assert after < before


@all_losses
@all_weights
def test_an_empty_mask_gives_a_finite_zero_with_a_graph(loss, weights):
    student, teacher = states()
    empty = torch.zeros_like(MASK)
    total, count = representation_loss(student, teacher, empty, loss, **weights)
    total.backward()
    assert total == count == 0
    assert not student.grad.any()


@all_losses
@all_weights
def test_the_split_the_order_and_the_padding_of_sequences_do_not_matter(loss, weights):
    student, teacher = states(dtype=torch.float64)
    whole, gradient = value_and_gradient(loss, student, teacher, **weights)
    order = torch.tensor([2, 0, 3, 1])
    parts, gradients = [], torch.zeros_like(gradient)
    for rows in order.split(2):
        pad = (0, 0, 2, 1)  # columns on either side, which the mask leaves out
        padded = [
            torch.nn.functional.pad(x[rows], pad, value=torch.nan) for x in (student, teacher)
        ]
        mask = torch.nn.functional.pad(MASK[rows], pad[2:])
        total, own = value_and_gradient(loss, *padded, mask, **weights)
        parts.append(total)
        gradients[rows] = own[:, 2:-1]
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(gradients, gradient)


@all_losses
@pytest.mark.parametrize("side", [0, 1])
def test_a_nan_inside_the_mask_reaches_the_total_and_one_outside_is_never_read(loss, side):
    both = [state.detach().clone() for state in states()]
    expected = value_and_gradient(loss, *both)
    both[side][0, 2] = torch.nan
    for found, value in zip(value_and_gradient(loss, *both), expected, strict=True):
        assert torch.equal(found, value)
    both[side][0, 0] = torch.nan
    assert value_and_gradient(loss, *both)[0].isnan()


@all_losses
def test_a_zero_state_gives_a_finite_loss_and_gradient(loss):
    for side in (0, 1):
        both = [state.detach().clone() for state in states()]
        both[side][0, 0] = 0
        assert all(found.isfinite().all() for found in value_and_gradient(loss, *both))


@all_losses
def test_products_stay_in_float32_under_autocast(loss):
    student, teacher = states()
    expected = value_and_gradient(loss, student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = representation_loss(student, teacher, MASK, loss)
        (gradient,) = torch.autograd.grad(total, student)
    assert torch.equal(total, expected[0])
    assert torch.equal(gradient, expected[1])


@all_losses
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_value_is_float32_and_only_the_gradient_is_rounded(loss, dtype):
    student, teacher = states(dtype=dtype)
    total, gradient = value_and_gradient(loss, student, teacher)
    expected = value_and_gradient(loss, student.double(), teacher.double())
    assert (total.dtype, gradient.dtype) == (torch.float32, dtype)
    torch.testing.assert_close(total.double(), expected[0], rtol=1e-4, atol=0)
    torch.testing.assert_close(gradient.double(), expected[1], rtol=2e-2, atol=1e-3)
