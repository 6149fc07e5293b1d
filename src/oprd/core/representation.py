"""The OPRD loss (Eqs. 6 and 14): the squared distance of student and teacher states.

    L = 1/|Layers| Σ_l 1/B Σ_b 1/Σ_t m_bt Σ_t m_bt · 1/D ‖h_student − sg(h_teacher)‖²

Through a bridge D is its rank. The paper's Eq. 14 has no such factor: its µ is ours over the rank.

Letters: B sequences, K response tokens, N selected rows, L layers, D width.
"""

from collections.abc import MutableMapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from oprd.core.layers import LayerPair
from oprd.core.positions import gather_rows, row_index
from oprd.core.reduction import LossSum, Reduction, position_weights, supervised_count

__all__ = ["LayerComparison", "LossSum", "Reduction", "representation_loss", "row_distances"]

# A state of this norm or less has no direction: normalised, it is zero.
EPSILON = 1e-12


class RowDistances(NamedTuple):
    """Student and teacher rows compared, each [N], float32 (float64 for float64 rows).

    Attributes:
        distance: mean over D of the squared difference, with a graph to the student.
        cosine: cosine of the two rows, without a graph.
        student_norm: L2 norm of the student's row, without a graph.
        teacher_norm: L2 norm of the teacher's row, without a graph.
    """

    distance: Tensor
    cosine: Tensor
    student_norm: Tensor
    teacher_norm: Tensor


class LayersLoss(NamedTuple):
    """The loss over all layers, and what each layer contributed.

    Attributes:
        loss: the mean over layers of their totals, with the count that all of them share.
        cosine: [L] each layer's sum over positions of the row cosine.
        student_norm: [L] sums of row norms; not finite where a row is not.
        teacher_norm: [L] likewise.
    """

    loss: LossSum
    cosine: Tensor
    student_norm: Tensor
    teacher_norm: Tensor


def representation_loss(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor,
    *,
    normalize: bool = False,
    reduction: Reduction = "sequence",
) -> LossSum:
    """The representation loss of one layer.

    Args:
        student: [B, K, D] states, float16, bfloat16, float32 or float64.
        teacher: [B, K, D] states; no gradient flows into them.
        mask: [B, K], true at supervised positions. What stands elsewhere is never read.
        normalize: scale every state to unit L2 norm first; a zero state stays zero.
        reduction: `"sequence"` (Eq. 6: mean over a sequence's positions, sum over sequences) or
            `"token"` (sum over positions).

    Returns:
        Total and count. An empty mask gives a finite zero with a graph, and a count of 0.

    Raises:
        ValueError: the shapes do not fit, or the reduction is unknown.
    """
    if student.ndim != 3 or student.shape != teacher.shape or student.shape[:2] != mask.shape:
        raise ValueError(
            "student and teacher must be [B, K, D] and the mask [B, K], got "
            f"{tuple(student.shape)}, {tuple(teacher.shape)} and {tuple(mask.shape)}."
        )
    index = row_index(mask.bool())
    rows = row_distances(gather_rows(student, index), gather_rows(teacher, index), normalize)
    weights = position_weights(mask, reduction, rows.distance.dtype).flatten()[index]
    return LossSum((rows.distance * weights).sum(), supervised_count(mask, reduction))


class LayerComparison:
    """The representation loss over layer pairs, one layer at a time as the student reaches it.

    Meant as the `transform` of the student's `capture_states`: each layer's rows meet the teacher's
    at once, and of both only their difference is kept. The backward pass then also works layer by
    layer; computed after the forward pass, all layers' gradients would come to exist first.

    Args:
        teacher: rows [N, D] by teacher layer, as `capture_states` gives them for a mask. They are
            taken out of the mapping as they are used.
        pairs: which layers meet.
        mask: [B, K], true at the N supervised positions, in row-major order.
        normalize: see `representation_loss`.
        reduction: see `representation_loss`.

    Raises:
        ValueError: there is no pair.
    """

    def __init__(
        self,
        teacher: MutableMapping[int, Tensor],
        pairs: Sequence[LayerPair],
        mask: Tensor,
        *,
        normalize: bool = False,
        reduction: Reduction = "sequence",
    ) -> None:
        if not pairs:
            raise ValueError("no layer pair to compare.")
        self._teacher = teacher
        self._partners = dict(pairs)
        # Several student layers may meet one teacher layer; the deepest of them is its last use.
        self._last_use = {pair.teacher: pair.student for pair in sorted(pairs)}
        self._weights = position_weights(mask, reduction)[mask.bool()]
        self._count = supervised_count(mask, reduction)
        self._normalize = normalize
        self._totals: dict[int, Tensor] = {}
        self._sums: dict[int, Tensor] = {}

    def __call__(self, layer: int, rows: Tensor) -> Tensor:
        """Compare the rows [N, D] of a student layer; returns its total."""
        partner = self._partners[layer]
        target = self._teacher[partner]
        if self._last_use[partner] == layer:
            del self._teacher[partner]
        compared = row_distances(rows, target, self._normalize)
        total = (compared.distance * self._weights.to(compared.distance)).sum()
        self._totals[layer] = total
        self._sums[layer] = torch.stack(compared[1:]).sum(dim=1)
        return total

    def result(self) -> LayersLoss:
        """The loss of all pairs, in their order.

        Raises:
            KeyError: a student layer was not reached.
        """
        # Layers may stand on several devices.
        totals = [self._totals[layer] for layer in self._partners]
        device = totals[0].device
        total = torch.stack([total.to(device) for total in totals]).mean()
        sums = torch.stack([self._sums[layer].to(device) for layer in self._partners])
        return LayersLoss(LossSum(total, self._count.to(device)), *sums.unbind(dim=1))


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
            u = s / _divisor(s_norm)
            error = u - t / _divisor(t_norm)
            distance = _norm(error).square() / width
            cosine = 1 - distance * width / 2
            error = error.sub_(u.mul_((u * error).sum(dim=-1, keepdim=True))).div_(_divisor(s_norm))
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


def _divisor(norm: Tensor) -> Tensor:
    """What normalises a row: a row without direction becomes zero, and gets no gradient."""
    return torch.where(norm > EPSILON, norm, torch.inf)[:, None]
