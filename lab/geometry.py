"""What output-space losses see of a hidden state along the directions of an LM head.

`oprd.core.output.spectrum` has the directions. OPRD compares h after the final norm at the last
layer: the norm's weight is part of h and not of the head.

Letters: N rows, V vocabulary, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from oprd.core.output.chunked import output_loss
from oprd.core.output.head import LMHead
from oprd.core.output.loss import OutputLoss
from oprd.core.states.distance import row_distances

MSE = "OPRD"


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
