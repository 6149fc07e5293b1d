"""What a bridge's pull makes of what the student says, read through its own LM head.

The distance of a pair pulls a state towards d = 0, d = P_S (h_S − µ_S) − P_T (h_T − µ_T). K steps
of gradient descent on the state itself, of the stable length 1/σ₁², lead with P_S = U diag(σ) Vᵀ to

    h′ = h_S − V diag((1 − (1 − σ² / σ₁²)^K) / σ) Uᵀ d

Alignment says how near h′ is to its target, not what is read there. Where KL(p‖q) of the student's
and the teacher's next tokens is larger at h′ than at h_S, a bridge unlearns while its cosine rises.

Letters: N rows, V vocabulary, S student width, H teacher width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from oprd.core.bridge.bridge import Bridge
from oprd.core.bridge.heads import HeadPair
from oprd.core.output.head import chunks

# K: enough for the strongest directions to arrive, too few for those that training hardly moves.
STEPS = 10


class Pull(NamedTuple):
    """Sums over rows of KL(p‖q) between both models' next tokens, in nats.

    Attributes:
        rows: N.
        before: at the student's states.
        after: where the pull of the bridge leads.
    """

    rows: int
    before: float
    after: float


def pulled_states(
    bridge: Bridge, layer: int, student: Tensor, teacher: Tensor, steps: int = STEPS
) -> Tensor:
    """[N, S] float64 h′ of student rows [N, S] and teacher rows [N, H], on the CPU.

    Raises:
        ValueError: the layer is not in the bridge, or rows do not fit it.
    """
    apart = bridge.project_student(layer, student) - bridge.project_teacher(layer, teacher)
    projection = bridge.student_projections[bridge.place_of(layer)].double().cpu()
    left, sizes, right = torch.linalg.svd(projection, full_matrices=False)
    kept = sizes > sizes[0] * projection.shape[1] * torch.finfo(sizes.dtype).eps
    left, sizes, right = left[:, kept], sizes[kept], right[kept]
    share = 1 - (1 - (sizes / sizes[0]).square()).pow(steps)
    return student.double().cpu() - (apart.double().cpu() @ left * (share / sizes)) @ right


@torch.no_grad()
def pull(bridge: Bridge, layer: int, student: Tensor, teacher: Tensor, heads: HeadPair) -> Pull:
    """How far the student's next tokens are from the teacher's, before and after the pull.

    Args:
        bridge: a fitted bridge.
        layer: the student's last layer.
        student: [N, S] rows of it, after the final norm.
        teacher: [N, H] rows of the teacher's last layer, likewise.
        heads: both LM heads.

    Raises:
        ValueError: see `pulled_states`.
    """
    pulled = pulled_states(bridge, layer, student, teacher).to(student)
    before = after = 0.0
    for part in chunks(len(student), heads.vocab_size):
        log_q = _log_probs(heads, "teacher", teacher[part])
        before += _divergence(_log_probs(heads, "student", student[part]), log_q)
        after += _divergence(_log_probs(heads, "student", pulled[part]), log_q)
    return Pull(len(student), before, after)


def _log_probs(heads: HeadPair, name: str, rows: Tensor) -> Tensor:
    """[N, V] in float32 or wider."""
    head = getattr(heads, name)
    rows = rows.to(head.weight.device, torch.promote_types(rows.dtype, torch.float32))
    return head.logits(rows, out=rows.new_empty(len(rows), heads.vocab_size)).log_softmax(dim=1)


def _divergence(log_p: Tensor, log_q: Tensor) -> float:
    """Σ KL(p‖q)."""
    by_row = (log_p.exp() * (log_p - log_q.to(log_p))).sum(dim=1)
    # Not every device has float64.
    return float(by_row.cpu().double().sum())
