"""The squared distance of states (Eqs. 6 and 14), the paper's loss.

    plain (Eq. 6):          d = 1/D ‖s − sg(t)‖²
    summed:                 d = ‖s − sg(t)‖²
    unit length (Eq. 14):   d = ‖u − sg(v)‖² = 2 (1 − cos(s, t)),   u = s/‖s‖, v = t/‖t‖

Through a bridge D is its rank.

Letters: N selected rows, D width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from oprd.core.states.loss import EPSILON, RowDistances, Sequences, StateLoss, no_direction


@dataclass(frozen=True)
class SquaredDistance(StateLoss):
    """The squared difference of two rows: its mean over the width, or the whole at unit length.

    Attributes:
        unit_length: scale every row to unit L2 norm first; a row without direction becomes zero.
        summed: add up over the width, instead of the mean.

    Raises:
        ValueError: one is not true or false, or rows of unit length, whose difference is a sum, are
            to be summed.
    """

    unit_length: bool = False
    summed: bool = False

    def __post_init__(self) -> None:
        for name in ("unit_length", "summed"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}.")
        if self.unit_length and self.summed:
            raise ValueError(
                "at unit length the distance is a sum already: leave summed out, or set "
                "scale='none'."
            )

    def __call__(self, student: Tensor, teacher: Tensor, sequences: Sequences) -> RowDistances:
        """Compare rows [N, D]; see `row_distances`."""
        return row_distances(student, teacher, self.unit_length, self.summed)


def row_distances(
    student: Tensor, teacher: Tensor, unit_length: bool = False, summed: bool = False
) -> RowDistances:
    """Compare student rows with teacher rows.

    Args:
        student: [N, D].
        teacher: [N, D]; may have another dtype; no gradient flows into it.
        unit_length: scale every row to unit L2 norm first.
        summed: add up over the width where rows are compared as they are.

    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student rows are {tuple(student.shape)} and teacher rows {tuple(teacher.shape)}: "
            "states of different widths need a bridge."
        )
    return RowDistances(*_SquaredDistance.apply(student, teacher, unit_length, summed))


class _SquaredDistance(torch.autograd.Function):
    """The distance, keeping one [N, D] tensor e in the student's dtype.

    Plain:        e = s − t,                      ∂d/∂s = 2/D e, summed 2 e
    Unit length:  e = 1/‖s‖ (I − u uᵀ) (u − v),   ∂d/∂s = 2 e
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, student: Tensor, teacher: Tensor, unit_length: bool, summed: bool
    ):
        dtype = torch.promote_types(student.dtype, torch.float32)
        divisor = 1 if summed else student.shape[-1]
        s, t = student.to(dtype), teacher.to(student.device, dtype)
        s_norm, t_norm = _norm(s), _norm(t)
        if unit_length:
            u = s / unit_divisor(s_norm)
            error = u - t / unit_divisor(t_norm)
            distance = _norm(error).square()
            cosine = 1 - distance / 2
            error = error.sub_(u.mul_((u * error).sum(dim=-1, keepdim=True))).div_(
                unit_divisor(s_norm)
            )
        else:
            error = s - t
            square = _norm(error).square()
            distance = square / divisor
            product = 2 * s_norm * t_norm
            cosine = (s_norm.square() + t_norm.square() - square) / product
        ctx.save_for_backward(error.to(student.dtype))
        ctx.factor = 2 if unit_length else 2 / divisor
        cosine = torch.where(no_direction(s_norm, t_norm), 0, cosine)
        ctx.mark_non_differentiable(cosine, s_norm, t_norm)
        return distance, cosine, s_norm, t_norm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (error,) = ctx.saved_tensors
        slope = (grad * ctx.factor).to(error.dtype)
        return error * slope[:, None], None, None, None


def _norm(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=-1)


def unit_divisor(norm: Tensor) -> Tensor:
    """What normalises a row: a row without direction becomes zero, and gets no gradient."""
    return torch.where(norm > EPSILON, norm, torch.inf)[:, None]
