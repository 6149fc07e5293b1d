"""The OPRD loss (Eqs. 6 and 14): a distance of student and teacher states, over layer pairs.

    L = 1/|Layers| Σ_l 1/σ_l² 1/B Σ_b 1/Σ_t m_bt Σ_t m_bt · d(h_student, sg(h_teacher))

The distance d of two rows is a loss of this folder. The mean square σ_l² of the teacher's states at
a layer makes its error a relative one; by default it is 1.

Letters: B sequences, K response tokens, N selected rows, L layers, D width.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from oprd.core.layers import LayerPair
from oprd.core.positions import row_index
from oprd.core.reduction import (
    LossSum,
    Reduction,
    divergence_weights,
    position_weights,
    supervised_count,
)
from oprd.core.states.distance import SquaredDistance
from oprd.core.states.loss import Sequences, StateLoss

# Eq. 6.
PLAIN = SquaredDistance()


class LayersLoss(NamedTuple):
    """The loss over all layers, and what each layer contributed.

    Attributes:
        loss: the mean over layers of their totals, with the count that all of them share.
        cosine: [L] each layer's sum over positions of the row cosine; None for unequal widths.
        student_norm: [L] sums of row norms; not finite where a row is not.
        teacher_norm: [L] likewise.
    """

    loss: LossSum
    cosine: Tensor | None
    student_norm: Tensor
    teacher_norm: Tensor


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
        loss: the distance of two rows.
        losses: by student layer, another one.
        reduction: `"sequence"` (Eq. 6: mean over a sequence's positions, sum over sequences) or
            `"token"` (sum over positions).
        mean_squares: by student layer, what its distances are divided by; 1 where it is left out.
        shares: [B], what each sequence's distances are multiplied by; 1 by default.
        by_divergence: weigh the positions of a sequence at each layer by their distances there
            (`divergence_weights`), instead of alike.

    Raises:
        ValueError: there is no pair, the reduction is unknown, or it is no reduction over sequences
            that positions are to be weighed in.
    """

    def __init__(
        self,
        teacher: MutableMapping[int, Tensor],
        pairs: Sequence[LayerPair],
        mask: Tensor,
        loss: StateLoss = PLAIN,
        *,
        losses: Mapping[int, StateLoss] | None = None,
        reduction: Reduction = "sequence",
        mean_squares: Mapping[int, float] | None = None,
        shares: Tensor | None = None,
        by_divergence: bool = False,
    ) -> None:
        if not pairs:
            raise ValueError("no layer pair to compare.")
        if by_divergence and reduction != "sequence":
            raise ValueError("positions are weighed by divergence within sequences alone.")
        self._teacher = teacher
        self._partners = dict(pairs)
        # Several student layers may meet one teacher layer; the deepest of them is its last use.
        self._last_use = {pair.teacher: pair.student for pair in sorted(pairs)}
        self._mask, self._index = mask, row_index(mask)
        self._reduction: Reduction = reduction
        self._shares, self._by_divergence = shares, by_divergence
        self._count = supervised_count(mask, reduction)
        self._loss, self._losses = loss, losses or {}
        self._mean_squares = mean_squares or {}
        self._sequences = Sequences(mask)
        self._has_cosine = True
        self._row_cosine: Tensor | None = None
        self._row_distance: Tensor | None = None
        self._totals: dict[int, Tensor] = {}
        self._sums: dict[int, Tensor] = {}

    def __call__(self, layer: int, rows: Tensor) -> Tensor:
        """Compare the rows [N, D] of a student layer; returns its total.

        Raises:
            ValueError: the student, the teacher or the mask has another number of rows; or see
                `StateLoss`.
        """
        partner = self._partners[layer]
        target = self._teacher[partner]
        counts = len(rows), len(target), len(self._index)
        if len(set(counts)) > 1:
            raise ValueError(
                f"layer {layer} has {counts[0]} student rows for {counts[1]} teacher rows (layer "
                f"{partner}) at {counts[2]} positions: row n of one meets row n of the other, so "
                "both views must select as many rows in every sequence as the mask."
            )
        if self._last_use[partner] == layer:
            del self._teacher[partner]
        loss = self._losses.get(layer, self._loss)
        distance, cosine, *norms = loss(rows, target, self._sequences)
        total = (distance * self._weights(distance)).sum()
        size = self._mean_squares.get(layer, 1.0)
        if layer in self._mean_squares:
            total = total / size
        self._totals[layer] = total
        before, own = self._row_distance, distance.detach() / size
        self._row_distance = own if before is None else before + own.to(before.device)
        self._has_cosine &= cosine is not None
        if cosine is not None:
            before = self._row_cosine
            self._row_cosine = cosine if before is None else before + cosine.to(before.device)
        statistics = [torch.zeros_like(norms[0]) if cosine is None else cosine, *norms]
        self._sums[layer] = torch.stack(statistics).sum(dim=1)
        return total

    def _weights(self, distance: Tensor) -> Tensor:
        """[N], of the rows."""
        if self._by_divergence:
            return divergence_weights(distance, self._index, self._mask, self._shares)
        weights = position_weights(self._mask, self._reduction, distance.dtype, self._shares)
        return weights.flatten()[self._index].to(distance)

    @property
    def row_cosine(self) -> Tensor | None:
        """[N], each row's cosine without a graph, mean over layers; None where a layer has none."""
        if self._row_cosine is None or not self._has_cosine:
            return None
        return self._row_cosine.detach() / len(self._partners)

    @property
    def row_distance(self) -> Tensor | None:
        """[N], each row's loss without a graph or weight, mean over layers; None before any."""
        return None if self._row_distance is None else self._row_distance / len(self._partners)

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
        cosine, *norms = sums.unbind(dim=1)
        return LayersLoss(
            LossSum(total, self._count.to(device)), cosine if self._has_cosine else None, *norms
        )
