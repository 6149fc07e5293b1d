"""Losses on the device, of states in bfloat16, beside their definitions in float64."""

import pytest
import torch

from oprd.core.states.distance import SquaredDistance
from tests.core.output.test_divergence import LOSSES, MASK, TOKENS
from tests.core.states.one_layer import representation_loss
from tests.gpu.device import DEVICE, on_the_device
from tests.reference import divergence
from tests.reference import representation as reference

pytestmark = on_the_device

V, WIDTH = 23, 16


def states(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*MASK.shape, WIDTH, generator=generator).bfloat16()


@pytest.mark.parametrize("reduction", ["sequence", "token"])
@pytest.mark.parametrize("unit_length", [False, True])
def test_the_distance_of_half_precision_states_is_equation_6s_or_14s(unit_length, reduction):
    student, teacher = states(0), states(1)
    own = student.to(DEVICE).requires_grad_()
    total, count = representation_loss(
        own, teacher.to(DEVICE), MASK.to(DEVICE), SquaredDistance(unit_length), reduction=reduction
    )
    (gradient,) = torch.autograd.grad(total, own)
    student.requires_grad_()
    expected, expected_count = reference.representation_loss(
        student, teacher, MASK, unit_length, reduction
    )
    (expected_gradient,) = torch.autograd.grad(expected, student)
    assert int(count) == expected_count and total.dtype == torch.float32
    torch.testing.assert_close(total.double().cpu(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient.cpu(), expected_gradient, rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_output_losses_of_half_precision_states_are_their_definitions(name):
    loss, value = LOSSES[name]
    generator = torch.Generator().manual_seed(2)
    heads = [torch.randn(V, WIDTH, generator=generator).bfloat16() for _ in range(2)]
    student, teacher = states(0), states(1)
    own = student.to(DEVICE).requires_grad_()
    moved = {
        key: given.to(DEVICE)
        for key, given in getattr(loss, "keywords", {}).items()
        if isinstance(given, torch.Tensor)
    }
    total, _ = loss(
        own, teacher.to(DEVICE), *(head.to(DEVICE) for head in heads), MASK.to(DEVICE), **moved
    )
    (gradient,) = torch.autograd.grad(total, own)
    student.requires_grad_()
    full = [(head, None, 1.0, None) for head in heads]
    expected, _ = divergence.total(value, student, teacher, *full, MASK, 1.0, "sequence")
    (expected_gradient,) = torch.autograd.grad(expected, student)
    torch.testing.assert_close(total.double().cpu(), expected, rtol=2e-2, atol=1e-3)
    error = (gradient.cpu().double() - expected_gradient.double()).norm()
    assert error / expected_gradient.double().norm() < 3e-2
    assert TOKENS.shape == MASK.shape
