"""The squared distance of states (Eqs. 6 and 14), the paper's loss.

    d = 1/D ‖h_student − sg(h_teacher)‖²

Through a bridge D is its rank. The paper's Eq. 14 has no such factor: its µ is ours over the rank.

Letters: N selected rows, D width.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from oprd.core.states.loss import RowDistances, Sequences, StateLoss

# A state of this norm or less has no direction: normalised, it is zero.
EPSILON = 1e-12


@dataclass(frozen=True)
class SquaredDistance(StateLoss):
    """The mean over the width of the squared difference of two rows.

    Attributes:
        normalize: scale every row to unit L2 norm first; a zero row stays zero.

    Raises:
        ValueError: `normalize` is not true or false.
    """

    normalize: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.normalize, bool):
            raise ValueError(f"normalize must be true or false, got {self.normalize!r}.")

    def __call__(self, student: Tensor, teacher: Tensor, sequences: Sequences) -> RowDistances:
        """Compare rows [N, D]; see `row_distances`."""
        return row_distances(student, teacher, self.normalize)


def row_distances(student: Tensor, teacher: Tensor, normalize: bool = False) -> RowDistances:
    """Compare student rows with teacher rows.

    Args:
        student: [N, D].
        teacher: [N, D]; may have another dtype; no gradient flows into it.
        normalize: scale every row to unit L2 norm first.

    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student rows are {tuple(student.shape)} and teacher rows {tuple(teacher.shape)}: "
            "states of different widths need a bridge."
        )
    return RowDistances(*_SquaredDistance.apply(student, teacher, normalize))


class _SquaredDistance(torch.autograd.Function):
    """d = 1/D ‖s − t‖², keeping one [N, D] tensor e with ∂d/∂s = 2/D e, in the student's dtype.

    Plain:       e = s − t
    Normalised:  with u = s/‖s‖ and v = t/‖t‖,  e = 1/‖s‖ (I − u uᵀ) (u − v)
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, normalize: bool):  # pyright: ignore[reportIncompatibleMethodOverride]
        dtype = torch.promote_types(student.dtype, torch.float32)
        width = student.shape[-1]
        s, t = student.to(dtype), teacher.to(student.device, dtype)
        s_norm, t_norm = _norm(s), _norm(t)
        if normalize:
            u = s / unit_divisor(s_norm)
            error = u - t / unit_divisor(t_norm)
            distance = _norm(error).square() / width
            cosine = 1 - distance * width / 2
            error = error.sub_(u.mul_((u * error).sum(dim=-1, keepdim=True))).div_(
                unit_divisor(s_norm)
            )
        else:
            error = s - t
            distance = _norm(error).square() / width
            product = 2 * s_norm * t_norm
            cosine = (s_norm.square() + t_norm.square() - distance * width) / product
        ctx.save_for_backward(error.to(student.dtype))
        cosine = torch.where((s_norm == 0) | (t_norm == 0), 0, cosine)
        ctx.mark_non_differentiable(cosine, s_norm, t_norm)
        return distance, cosine, s_norm, t_norm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (error,) = ctx.saved_tensors
        slope = (grad * (2 / error.shape[-1])).to(error.dtype)
        return error * slope[:, None], None, None


def _norm(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=-1)


def unit_divisor(norm: Tensor) -> Tensor:
    """What normalises a row: a row without direction becomes zero, and gets no gradient."""
    return torch.where(norm > EPSILON, norm, torch.inf)[:, None]
