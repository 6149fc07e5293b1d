"""The squared difference of two models' similarity matrices: which states of a response are alike.

    1/n² Σ_ts E_ts²,   E = U Uᵀ − V Vᵀ

over the n supervised positions of a response, U and V the student's and the teacher's states at
unit length. Only angles within each model meet, so the two may have any widths; as the loss does
not change when a model's states are turned, it says nothing of where they point. Centred kernel
alignment compares the same matrices over a data set, centred and normalised as a whole.

Letters: N selected rows, n rows of a sequence, τ rows of a tile, S student and H teacher width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from oprd.core.states.distance import unit_divisor
from oprd.core.states.loss import RowDistances, Sequences, StateLoss, with_statistics

TILE_ELEMENTS = 2**22
"""Most elements of a tile of E (16 MB in float32; two exist at a time)."""


@dataclass(frozen=True)
class GramDistance(StateLoss):
    """The mean squared difference of the cosines between a response's states in the two models.

    Row t's value is 1/n Σ_s E_ts² over the n rows of its own sequence, whose mean is the loss. A
    zero row is at right angles to every row, and gets no gradient.
    """

    equal_widths: ClassVar[bool] = False
    # A state is as alike to itself in either model.
    least_rows: ClassVar[int] = 2

    def __call__(self, student: Tensor, teacher: Tensor, sequences: Sequences) -> RowDistances:
        """Compare rows [N, S] with rows [N, H]; see `StateLoss`."""
        teacher = teacher.detach().to(student.device)
        values = _GramDistance.apply(student, teacher, sequences.lengths)
        return with_statistics(values, student, teacher)


class _GramDistance(torch.autograd.Function):
    """d_t = 1/n Σ_s E_ts², keeping the rows; E is formed anew, tile by tile, in the backward pass.

    With g the gradient that reaches d:   ∂/∂u_t = 2/n Σ_s (g_t + g_s) E_ts u_s
    Through u = s/‖s‖:                    ∂/∂s_t = 1/‖s_t‖ (I − u_t u_tᵀ) ∂/∂u_t
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, lengths: Sequence[int]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(student, teacher)
        ctx.lengths = lengths
        ctx.dtype = torch.promote_types(student.dtype, torch.float32)
        (u, _), (v, _) = _unit(student, ctx.dtype), _unit(teacher, ctx.dtype)
        values = u.new_zeros(len(u))
        with torch.autocast(u.device.type, enabled=False):
            for tile, _, error in _tiles(u, v, lengths):
                values[tile] = error.square_().mean(dim=1)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        student, teacher = ctx.saved_tensors
        (u, divisor), (v, _) = _unit(student, ctx.dtype), _unit(teacher, ctx.dtype)
        slope = torch.zeros_like(u)
        with torch.autocast(u.device.type, enabled=False):
            for tile, sequence, error in _tiles(u, v, ctx.lengths):
                error.mul_(grad[tile, None] + grad[sequence])
                slope[tile] = (error @ u[sequence]).mul_(2 / error.shape[1])
        slope -= u * (u * slope).sum(dim=-1, keepdim=True)
        return slope.div_(divisor).to(student.dtype), None, None


def _unit(rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows [N, D] at unit length, and what they were divided by, [N, 1]."""
    rows = rows.to(dtype)
    divisor = unit_divisor(torch.linalg.vector_norm(rows, dim=-1))
    return rows / divisor, divisor


def _tiles(u: Tensor, v: Tensor, lengths: Sequence[int]) -> Iterator[tuple[slice, slice, Tensor]]:
    """E [τ, n] tile by tile, with where its τ rows and the n of their sequence stand."""
    end = 0
    for length in lengths:
        start, end = end, end + length
        sequence = slice(start, end)
        step = max(1, TILE_ELEMENTS // max(1, length))
        for first in range(start, end, step):
            tile = slice(first, min(first + step, end))
            # Two products and a difference, so that equal models differ by exactly zero.
            yield tile, sequence, (u[tile] @ u[sequence].T).sub_(v[tile] @ v[sequence].T)
