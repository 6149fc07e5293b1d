"""How per-position values become one number: a sum and a count, never a local mean.

Letters: B sequences, K response tokens.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

Reduction = Literal["sequence", "token"]


class LossSum(NamedTuple):
    """A loss before its division.

    The caller adds up the totals and the counts of all micro-batches and processes, then divides
    once: the result does not depend on how a batch was split.

    Attributes:
        total: scalar, float32 (float64 for float64 states), with a graph to the student.
        count: scalar, float32: sequences with any position, or positions.
    """

    total: Tensor
    count: Tensor  # pyright: ignore[reportIncompatibleMethodOverride] # tuple.count is not missed here


def position_weights(
    mask: Tensor,
    reduction: Reduction = "sequence",
    dtype: torch.dtype = torch.float32,
    shares: Tensor | None = None,
) -> Tensor:
    """The weight of each position in a total: Σ_b Σ_t w_bt · value_bt.

    `"sequence"` is the paper's Eq. 6, w_bt = m_bt / Σ_t m_bt: the mean over a sequence's positions,
    then the sum over sequences. `"token"` weighs each position by one.

    Args:
        mask: [B, K], true (or non-zero) where a position is supervised.
        reduction: `"sequence"` or `"token"`.
        dtype: that of the values to be weighed.
        shares: [B], what a sequence's weights are multiplied by; 1 by default.

    Returns:
        [B, K], zero where the mask is false.

    Raises:
        ValueError: the reduction is not one of the two, or the mask is not [B, K].
    """
    _check_reduction(reduction)
    if mask.ndim != 2:
        raise ValueError(f"mask must be [B, K], got shape {tuple(mask.shape)}.")
    weights = mask.bool().to(dtype)
    if reduction == "sequence":
        weights = weights / weights.sum(dim=1, keepdim=True).clamp(min=1)
    return weights if shares is None else weights * shares.to(weights)[:, None]


def divergence_weights(
    distance: Tensor, index: Tensor, mask: Tensor, shares: Tensor | None = None
) -> Tensor:
    """The weight of each row by how far it is: w_n = d_n / Σ_m d_m over the rows of its sequence.

    The weights of a sequence add up to one, as those of the sequence reduction do, so that neither
    the count nor the split of a batch matters; where all distances are zero they are alike. No
    gradient flows through them: that of the loss is Σ_n w_n ∂d_n.

    Args:
        distance: [N], not negative, of the rows where the mask is true, in its row-major order.
        index: [N], where these are (`row_index`, which waits for the device: once for all layers).
        mask: [B, K], true at N entries.
        shares: [B], what a sequence's weights are multiplied by; 1 by default.

    Returns:
        [N], in the dtype of the distances, without a graph.
    """
    far = distance.detach()
    sequence = index.to(far.device) // mask.shape[1]
    sums = far.new_zeros(len(mask)).index_add(0, sequence, far)
    alike = mask.bool().sum(dim=1).to(sums).clamp(min=1).reciprocal()
    weights = torch.where(sums[sequence] > 0, far / sums[sequence], alike[sequence])
    return weights if shares is None else weights * shares.to(weights)[sequence]


def supervised_count(mask: Tensor, reduction: Reduction = "sequence") -> Tensor:
    """What a total is divided by: the sum of all position weights, scalar float32.

    Args:
        mask: [B, K], true where a position is supervised.
        reduction: `"sequence"` counts sequences with any position, `"token"` counts positions.

    Raises:
        ValueError: the reduction is not one of the two.
    """
    _check_reduction(reduction)
    selected = mask.bool()
    return (selected.any(dim=1) if reduction == "sequence" else selected).sum().float()


def _check_reduction(reduction: str) -> None:
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be 'sequence' or 'token', got {reduction!r}.")
