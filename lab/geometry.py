"""What an LM head lets output-space losses see of a hidden state.

Logits are z = W h, and a shift of all of them by one number changes no distribution. So a
difference Δh is seen through W centred over the vocabulary alone,

    (I − 1/V 1 1ᵀ) W = U diag(σ) [v_1 … v_D]ᵀ,    ‖centred Δz‖² = Σ_i σ_i² (v_i · Δh)²

and not at all in the span of the v_i with σ_i = 0. h is the state after the final norm, which OPRD
compares at the last layer: the norm's weight is part of h and not of W.

Letters: N rows, V vocabulary, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from oprd.core.output.chunked import output_loss
from oprd.core.output.head import LMHead
from oprd.core.output.loss import OutputLoss
from oprd.core.states.distance import row_distances

# Singular values below this share of the largest are rounding errors of float32 weights.
ROUNDING = 1e-6
MSE = "OPRD"


class HeadSpectrum(NamedTuple):
    """Of a centred head.

    Attributes:
        values: [D] float64, σ_1 ≥ … ≥ σ_D, zeros for a null space included.
        directions: [D, D] float64, row i − 1 is v_i.
    """

    values: Tensor
    directions: Tensor

    @property
    def rank(self) -> int:
        """How many directions the head sees."""
        return int((self.values > ROUNDING * self.values[0]).sum())

    @property
    def condition(self) -> float:
        """σ_1 over the smallest that is not zero."""
        return float(self.values[0] / self.values[self.rank - 1])


def head_spectrum(weight: Tensor, scale: Tensor | None = None) -> HeadSpectrum:
    """Singular values and right singular vectors of a centred head.

    Args:
        weight: [V, D].
        scale: [D], multiplies the state first: a final norm's weight, to see the head from the
            state before it.
    """
    centred = weight.detach().double()
    centred = centred - centred.mean(dim=0)
    if scale is not None:
        centred = centred * scale.detach().double()
    # The triangular factor has the same σ and v, and no more rows than columns.
    triangular = torch.linalg.qr(centred, mode="r").R
    _, values, directions = torch.linalg.svd(triangular, full_matrices=True)
    padded = values.new_zeros(len(directions))
    padded[: len(values)] = values
    return HeadSpectrum(padded, directions)


@torch.no_grad()
def losses_along(
    head: LMHead, rows: Tensor, direction: Tensor, size: float, losses: dict[str, OutputLoss]
) -> dict[str, float]:
    """What losses say of a student whose states are off by `size` along one direction.

    Teacher states are the rows themselves, and both models have the same head. Means over the rows
    and over both signs, in float64: some are a trillion times smaller than others.

    Args:
        head: of both.
        rows: [N, D] states at the last layer.
        direction: [D], of unit length.
        size: ‖Δh‖.
        losses: by name; none that looks at the rollout's tokens.

    Returns:
        by the losses' names, and OPRD's own under `MSE`.
    """
    teacher = rows.double()
    mask = torch.ones(1, len(rows), dtype=torch.bool)
    found = dict.fromkeys([*losses, MSE], 0.0)
    for sign in (1, -1):
        student = teacher + sign * size * direction
        for name, loss in losses.items():
            total, count = output_loss(loss, student, teacher, head, head, mask, reduction="token")
            found[name] += float(total / count)
        found[MSE] += float(row_distances(student, teacher).distance.mean())
    return {name: value / 2 for name, value in found.items()}


class ErrorSplit(NamedTuple):
    """‖Δh‖² of a student, and where it lies; means over rows.

    Attributes:
        seen: in the span that the head sees, over the teacher's ‖h‖² there.
        unseen: in the null space, over the teacher's ‖h‖² there; None where there is none.
        unseen_share: the share of ‖Δh‖² that is in the null space.
    """

    seen: float
    unseen: float | None
    unseen_share: float


def split_error(student: Tensor, teacher: Tensor, directions: Tensor, rank: int) -> ErrorSplit:
    """Split a student's error [N, D] − [N, D] by what a head sees.

    Args:
        student: last states.
        teacher: on the same tokens.
        directions: of `HeadSpectrum`.
        rank: how many of them count as seen.
    """
    energy = ((student.double() - teacher.double()) @ directions.T).square().mean(dim=0)
    whole = (teacher.double() @ directions.T).square().mean(dim=0)
    unseen = float(energy[rank:].sum())
    return ErrorSplit(
        float(energy[:rank].sum() / whole[:rank].sum()),
        unseen / float(whole[rank:].sum()) if rank < len(directions) else None,
        unseen / float(energy.sum()),
    )


def relative_error(student: Tensor, teacher: Tensor) -> float:
    """Σ ‖Δh‖² / Σ ‖h_teacher‖² over rows [N, D]."""
    return float((student - teacher).square().sum() / teacher.square().sum())
