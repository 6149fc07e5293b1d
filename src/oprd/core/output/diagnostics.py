"""The paper's output-space diagnostics, in one pass over chunks of rows, without a graph.

Letters: n rows of a chunk, V vocabulary.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from oprd.core.output.chunk import Chunk, pass_over
from oprd.core.output.divergence import check_k, is_among
from oprd.core.output.pair import Pair
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
def output_diagnostics(pair: Pair, *, k: int = 16) -> DiagnosticSums:
    """How far apart the two next-token distributions are at the positions of a loss.

    Args:
        pair: of `oprd.core.output.pair.select_pair`, with the rollout's tokens.
        k: how many likely tokens the overlap compares, 1..V.

    Raises:
        ValueError: k is out of bounds, or the pair has no tokens.
    """
    check_k(k, pair.student_head.vocab_size)
    rows = pair.student_rows
    sums = torch.zeros(5, dtype=pair.dtype, device=rows.device)
    with torch.autocast(rows.device.type, enabled=False):
        for chunk in pass_over(pair):
            sums += _chunk_sums(chunk, k)
    overlap, student_entropy, teacher_entropy, reverse_kl, sampled = sums
    count = supervised_count(pair.mask, "token")
    return DiagnosticSums(overlap, student_entropy, teacher_entropy, reverse_kl, sampled, count)


def _chunk_sums(chunk: Chunk, k: int) -> Tensor:
    """The five sums of `DiagnosticSums` over a chunk, in its order."""
    ids = chunk.token_ids
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
