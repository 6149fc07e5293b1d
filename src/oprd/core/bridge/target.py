"""What a student would say at a bridge's targets, read through its own LM head.

The nearest state to h_S at which the distance of its pair is zero is

    h* = h_S − P_S⁺ (P_S (h_S − µ_S) − P_T (h_T − µ_T))

and training moves h_S towards it. Alignment says how near they are, not what is read there: where
the student's likeliest token at h* is less often the teacher's than it is at h_S, a bridge unlearns
while its cosine rises.

Letters: N rows, V vocabulary, S student width, H teacher width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from oprd.core.bridge.bridge import Bridge
from oprd.core.bridge.heads import HeadPair
from oprd.core.output.head import LMHead, chunks


class Agreement(NamedTuple):
    """Rows at which the student's likeliest token is the teacher's.

    Attributes:
        rows: N.
        before: at the student's states.
        at_target: at the bridge's targets.
    """

    rows: int
    before: int
    at_target: int


def target_states(bridge: Bridge, layer: int, student: Tensor, teacher: Tensor) -> Tensor:
    """[N, S] float64 h* of student rows [N, S] and teacher rows [N, H], on the CPU.

    Raises:
        ValueError: the layer is not in the bridge, or rows do not fit it.
    """
    apart = bridge.project_student(layer, student) - bridge.project_teacher(layer, teacher)
    projection = bridge.student_projections[bridge.place_of(layer)].double().cpu()
    return student.double().cpu() - apart.double().cpu() @ torch.linalg.pinv(projection).T


@torch.no_grad()
def target_agreement(
    bridge: Bridge, layer: int, student: Tensor, teacher: Tensor, heads: HeadPair
) -> Agreement:
    """How often the student would agree with the teacher, before training and at its targets.

    Args:
        bridge: a fitted bridge.
        layer: the student's last layer.
        student: [N, S] rows of it, after the final norm.
        teacher: [N, H] rows of the teacher's last layer, likewise.
        heads: both LM heads.

    Raises:
        ValueError: see `target_states`.
    """
    said = _likeliest(heads.teacher, teacher)
    target = target_states(bridge, layer, student, teacher).to(student)
    before, after = (
        int((_likeliest(heads.student, rows) == said).sum()) for rows in (student, target)
    )
    return Agreement(len(student), before, after)


def _likeliest(head: LMHead, rows: Tensor) -> Tensor:
    """[N] ids, on the CPU."""
    rows = rows.to(head.weight.device, torch.promote_types(rows.dtype, torch.float32))
    found = []
    for part in chunks(len(rows), head.vocab_size):
        logits = rows.new_empty(part.stop - part.start, head.vocab_size)
        found.append(head.logits(rows[part], out=logits).argmax(dim=1).cpu())
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int64)
