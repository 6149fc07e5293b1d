"""How far a student has moved since it wrote the rollouts that it learns from.

With ŷ ~ p_old, the mean over tokens of r − 1 − log r, r = p_new(ŷ) / p_old(ŷ), is an estimate of
KL(p_old‖p_new) without bias that is never negative.

Letters: B sequences, K response tokens, N response positions, V vocabulary, D width.
"""

import torch
from torch import Tensor

from oprd.core.output.chunk import log_softmax_at, pass_over
from oprd.core.output.head import LMHead
from oprd.core.output.pair import select_pair
from oprd.core.reduction import LossSum


@torch.no_grad()
def token_log_probs(
    hidden: Tensor,
    head: LMHead | Tensor,
    mask: Tensor,
    token_ids: Tensor,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """The log-probabilities [N] of a rollout's tokens, in chunks of rows and without a graph.

    Args:
        hidden: [B, K, D], row t the state that predicts token t, or the mask's rows [N, D].
        head: an `LMHead`, or its weight [V, D].
        mask: [B, K], true at response tokens.
        token_ids: [B, K] integers, the rollout ŷ.
        temperature: divides the logits.

    Raises:
        ValueError: a shape, the temperature or a token id in the mask is out of bounds.
    """
    pair = select_pair(hidden, hidden, head, head, mask, temperature, token_ids)
    found = pair.student_rows.new_empty(len(pair.index), dtype=pair.dtype)
    with torch.autocast(found.device.type, enabled=False):
        for chunk in pass_over(pair):
            at, _, _ = log_softmax_at(chunk.student_logits(), chunk.token_ids[:, None])
            found[chunk.part] = at[:, 0]
    return found


def drift(written: Tensor, now: Tensor) -> LossSum:
    """The estimate's sum over tokens, and their number.

    Args:
        written: [N], log p_old(ŷ).
        now: [N], log p_new(ŷ).

    Raises:
        ValueError: the shapes differ.
    """
    if written.shape != now.shape:
        raise ValueError(f"log-probabilities of {len(written)} tokens and of {len(now)}.")
    change = now - written
    # A small change's r rounds to 1, and r − 1 would be lost.
    return LossSum((change.expm1() - change).sum(), change.new_tensor(float(len(change))))
