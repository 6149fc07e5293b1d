"""Weights as int4 would hold them, while they train: fake quantisation, straight through.

Of every 32 weights in a row the largest is seven steps from zero, and each weight is rounded to the
nearest step. Forward passes see the rounded weights; their gradient goes to the plain ones, as if
nothing had been rounded. The plain ones are what checkpoints hold, under their usual names.

Letters: O outputs, I inputs of a linear layer.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from oprd.core.capture import blocks

GROUP = 32
STEPS = 7


def rounded(weight: Tensor) -> Tensor:
    """A weight [O, I] as int4 in groups of 32 inputs holds it, in its own dtype.

    A group's step is that of bfloat16, so that seven of them are exact in float32: there, what is
    rounded once more stays as it is.

    Raises:
        ValueError: I is no multiple of 32.
    """
    if weight.shape[-1] % GROUP:
        raise ValueError(f"{weight.shape[-1]} inputs are no multiple of {GROUP}, a group of int4.")
    groups = weight.float().unflatten(-1, (-1, GROUP))
    step = (groups.abs().amax(dim=-1, keepdim=True) / STEPS).bfloat16().float()
    # A group of zeros has no step.
    levels = (groups / step.where(step > 0, 1)).round().clamp(-STEPS, STEPS)
    return (levels * step).flatten(-2).to(weight.dtype)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, instead: Tensor) -> Tensor:
        return instead.view_as(instead)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


class Int4Linear(nn.Linear):
    """A linear layer that computes with its weight rounded."""

    _kept: tuple[tuple[int, int], Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:  # the name that PyTorch gives it
        """As `nn.Linear`, with the rounded weight."""
        instead = self._rounded()
        if torch.is_grad_enabled() and self.weight.requires_grad:
            instead = cast(Tensor, _StraightThrough.apply(self.weight, instead))
        return nn.functional.linear(input, instead, self.bias)

    @torch.no_grad()
    def _rounded(self) -> Tensor:
        """Made once for weights that stay, as they do for all tokens of a rollout."""
        if torch.distributed.is_initialized():
            # Sharded weights are put together anew for each forward pass, which nothing shows.
            return rounded(self.weight)
        version = (self.weight.data_ptr(), self.weight._version)
        if self._kept is None or self._kept[0] != version:
            self._kept = version, rounded(self.weight)
        return self._kept[1]


def quantize(model: nn.Module) -> int:
    """Let all linear layers in a model's blocks compute with rounded weights, in place.

    The embedding, the LM head and the norms stay as they are.

    Returns:
        how many weights are rounded.

    Raises:
        ValueError: the blocks have no linear layer, or one whose inputs make no whole groups.
    """
    linears = [module for module in blocks(model).modules() if type(module) is nn.Linear]
    if not linears:
        raise ValueError("the model's blocks have no torch.nn.Linear, whose weights are rounded.")
    for linear in linears:
        rounded(linear.weight[:1])
    for linear in linears:
        linear.__class__ = Int4Linear
    return sum(linear.weight.numel() for linear in linears)


@torch.no_grad()
def settle(model: nn.Module) -> None:
    """Write the rounded weights in the place of the plain ones: the function stays what it is."""
    for module in model.modules():
        if isinstance(module, Int4Linear):
            module.weight.copy_(rounded(module.weight))
