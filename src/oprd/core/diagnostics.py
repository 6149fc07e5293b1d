"""The paper's output-space diagnostics, in one pass over chunks of rows, without a graph.

Letters: B sequences, K response tokens, n rows of a chunk, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from oprd.core.divergence import is_among
from oprd.core.head import LMHead
from oprd.core.pair import Chunk, check_k, pass_over, select_pair, supervised_ids
from oprd.core.reduction import supervised_count


class DiagnosticSums(NamedTuple):
    """Sums over supervised positions, scalars in float32 (float64 for float64 student states).

    As with a loss, sums and counts of all micro-batches and processes are added before dividing.

    Attributes:
        topk_overlap: |top-k(p) ∩ top-k(q)| / k.
        student_entropy: −Σ p log p, in nats.
        teacher_entropy: −Σ q log q.
        reverse_kl: KL(p‖q).
        policy_gradient_loss: log p(ŷ) − log q(ŷ) at the rollout's token.
        count: the number of positions, float32.
    """

    topk_overlap: Tensor
    student_entropy: Tensor
    teacher_entropy: Tensor
    reverse_kl: Tensor
    policy_gradient_loss: Tensor
    count: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]


@torch.no_grad()
def output_diagnostics(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    student_head: LMHead | Tensor,
    teacher_head: LMHead | Tensor,
    mask: Tensor,
    token_ids: Tensor,
    *,
    k: int = 16,
    temperature: float = 1.0,
) -> DiagnosticSums:
    """How far apart the two next-token distributions are at the positions of a loss.

    Args:
        student_hidden: [B, K, student width], row t the state that predicts token t.
        teacher_hidden: [B, K, teacher width], on the same tokens.
        student_head: an `LMHead`, or its weight [V, student width].
        teacher_head: an `LMHead`, or its weight [V, teacher width].
        mask: [B, K], true where a position is supervised; other rows are never read.
        token_ids: [B, K] integers, the rollout ŷ; ids outside the mask are never read.
        k: how many likely tokens the overlap compares, 1..V.
        temperature: divides both models' logits.

    Raises:
        ValueError: a shape, k, the temperature or a supervised token id is out of bounds, or the
            vocabularies differ in size.
    """
    pair = select_pair(
        student_hidden, teacher_hidden, student_head, teacher_head, mask, temperature
    )
    ids = supervised_ids(token_ids, pair)
    check_k(k, pair)
    rows = pair.student_rows
    sums = torch.zeros(5, dtype=pair.dtype, device=rows.device)
    with torch.autocast(rows.device.type, enabled=False):
        for chunk in pass_over(pair):
            sums += _chunk_sums(chunk, ids[chunk.part], k)
    overlap, student_entropy, teacher_entropy, reverse_kl, sampled = sums
    count = supervised_count(pair.mask, "token")
    return DiagnosticSums(overlap, student_entropy, teacher_entropy, reverse_kl, sampled, count)


def _chunk_sums(chunk: Chunk, ids: Tensor, k: int) -> Tensor:
    """The five sums of `DiagnosticSums` over a chunk, in its order."""
    log_p, log_q = chunk.log_p(), chunk.log_q()
    top_p, top_q = (scores.topk(k, dim=1, sorted=False).indices for scores in (log_p, log_q))
    overlap = is_among(top_p, top_q).sum().to(log_p.dtype) / k
    sampled = (log_p.gather(1, ids[:, None]) - log_q.gather(1, ids[:, None])).sum()
    q = torch.exp(log_q, out=chunk.scratch())
    teacher_entropy = -q.mul_(log_q).sum()
    p = torch.exp(log_p, out=chunk.scratch())
    reverse_kl = -log_q.sub_(log_p).mul_(p).sum()
    student_entropy = -log_p.mul_(p).sum()
    return torch.stack([overlap, student_entropy, teacher_entropy, reverse_kl, sampled])
