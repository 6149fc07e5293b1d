"""Tokens that are one action, such as two that both end a response: their probabilities are added.

The first of the group stands for all of them,

    z_1 ← log Σ_e exp z_e,        ∂L/∂z_e = ∂L/∂z_1 · exp(z_e − z_1)

and the others keep so low a logit that their probability is zero, yet finite.

Letters: n rows, V vocabulary, M ids looked at in each row, E tokens of the group.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_group(group: Sequence[int], vocab_size: int) -> None:
    """Refuse, with a ValueError, a group that is no set of several tokens of the vocabulary."""
    inside = all(0 <= token < vocab_size for token in group)
    if group and not (inside and 2 <= len(group) == len(set(group))):
        raise ValueError(
            f"tokens that are one action must be several of 0..{vocab_size - 1}, got {[*group]}."
        )


def join(logits: Tensor, group: Sequence[int]) -> Tensor:
    """Logits [n, V], changed in place; as they are where there is no group."""
    if group:
        ids = torch.tensor(group, device=logits.device)
        total = logits[:, ids].logsumexp(dim=1)
        logits[:, ids] = _floor(logits)
        logits[:, group[0]] = total
    return logits


def join_at(logits: Tensor, ids: Tensor, own: Tensor, group: Sequence[int]) -> Tensor:
    """Logits [n, M] at ids [n, M], given those of the group itself, [n, E]."""
    total = own.logsumexp(dim=1, keepdim=True)
    others = torch.isin(ids, torch.tensor(group[1:], device=ids.device))
    joined = torch.where(ids == group[0], total, logits)
    return joined.masked_fill(others, _floor(logits))


def apart(
    slope: Tensor, ids: Tensor | None, own: Tensor, group: Sequence[int]
) -> tuple[Tensor, Tensor | None]:
    """∂/∂ joined logits as ∂/∂ logits.

    Args:
        slope: [n, V], or [n, M] at ids; may be overwritten.
        ids: [n, M], None for all tokens.
        own: [n, E], the logits of the group.
        group: its tokens.

    Returns:
        Likewise, with M + E columns where there are ids.
    """
    shares = own.softmax(dim=1)
    members = torch.tensor(group, device=slope.device)
    if ids is None:
        slope[:, members] = slope[:, group[0], None] * shares
        return slope, None
    total = (slope * (ids == group[0])).sum(dim=1, keepdim=True)
    slope = slope.masked_fill(torch.isin(ids, members), 0)
    return (
        torch.cat([slope, total * shares], dim=1),
        torch.cat([ids, members.expand(len(ids), -1)], dim=1),
    )


def as_first(ids: Tensor, group: Sequence[int]) -> Tensor:
    """Token ids with the first of the group in the place of the others."""
    if not group:
        return ids
    return torch.where(torch.isin(ids, torch.tensor(group, device=ids.device)), group[0], ids)


def _floor(logits: Tensor) -> float:
    return torch.finfo(logits.dtype).min / 4
