"""What is the skewed divergences' own; what holds of every output loss is in `test_divergence`."""

import dataclasses
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from oprd.core.output.chunked import output_loss
from oprd.core.output.divergence import ForwardKL, ReverseKL
from oprd.core.output.head import LMHead
from oprd.core.output.skewed import SkewedKL
from tests.core.output.test_divergence import MASK, V, setting, student_variables

both_ways = pytest.mark.parametrize("mirror", [False, True])


def value_and_gradients(loss, arguments, mask=MASK):
    total, _ = output_loss(loss, *arguments, mask)
    return total, *torch.autograd.grad(total, student_variables(arguments[0], arguments[2]))


@pytest.mark.parametrize(("mirror", "limit"), [(False, ReverseKL()), (True, ForwardKL())])
def test_without_skew_it_is_the_reverse_and_mirrored_the_forward_kl(mirror, limit):
    expected = value_and_gradients(limit, setting())
    without, with_little = (
        value_and_gradients(SkewedKL(alpha, mirror), setting()) for alpha in (0, 1e-13)
    )
    for i, value in enumerate(expected):
        assert torch.equal(without[i], value)
        torch.testing.assert_close(with_little[i], value)


@both_ways
@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
def test_analytic_gradients_agree_with_finite_differences(mirror, alpha):
    mask = torch.ones(1, 2, dtype=torch.bool)
    student, teacher, head, teacher_head = setting(mask=mask)

    def total(student, weight, bias):
        head_now = LMHead(weight, bias, head.scale, head.softcap)
        pair = (student, teacher.detach(), head_now, teacher_head.detach())
        return output_loss(SkewedKL(alpha, mirror), *pair, mask).total

    assert torch.autograd.gradcheck(total, (student, head.weight, head.bias))


@both_ways
@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.9])
def test_models_that_rule_out_each_others_tokens_stay_below_minus_log_alpha(mirror, alpha):
    student, teacher, head, teacher_head = setting(dtype=torch.float32, kind="weight")
    far = LMHead((200 * head.weight).detach().requires_grad_()), LMHead(200 * teacher_head.weight)
    for states in (student, teacher):
        torch.nan_to_num_(states.data)
    one = torch.zeros_like(MASK)
    one[0, 0] = True
    total, *gradients = value_and_gradients(SkewedKL(alpha, mirror), (student, teacher, *far), one)
    assert 0.9 * -math.log(alpha) < total <= -math.log(alpha) + 1e-5
    assert all(gradient.isfinite().all() for gradient in gradients)


class Storages(TorchDispatchMode):
    """Keeps what operations wrote to, of no fewer elements than asked for."""

    def __init__(self, elements):
        super().__init__()
        self.elements, self.found = elements, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.numel() >= self.elements:
            self.found[result.untyped_storage().data_ptr()] = result
        return result


@both_ways
def test_it_works_in_the_three_buffers_of_a_chunk(mirror):
    arguments = setting(kind="weight")
    with Storages(int(MASK.sum()) * V) as found:
        output_loss(SkewedKL(0.3, mirror), *arguments, MASK)
        assert len(found.found) == 3
        torch.zeros(int(MASK.sum()), V)
    assert len(found.found) == 4, "one more is seen"


@pytest.mark.parametrize("alpha", [-0.1, 1, 1.5, math.nan, math.inf, True, "0.1", None])
def test_an_alpha_outside_0_to_1_is_refused(alpha):
    with pytest.raises(ValueError, match=rf"alpha must be at least 0 .* and below 1 .*{alpha!r}"):
        SkewedKL(alpha)


def test_a_mirror_that_is_neither_true_nor_false_is_refused():
    with pytest.raises(ValueError, match="mirror must be true or false, got 'yes'"):
        SkewedKL(mirror="yes")


def test_parameters_and_defaults_stay():
    assert dataclasses.asdict(SkewedKL()) == {"alpha": 0.1, "mirror": False}
