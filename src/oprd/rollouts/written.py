"""A rollout as it was written, and what is known of it besides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(eq=False)
class Rollout:
    """What was written for a prompt.

    Attributes:
        prompt_ids: what the student was asked.
        response_ids: what came back.
        by_teacher: how many of these, the first ones, the teacher wrote.
        log_probs: of the others, for the student that wrote them; None where they are not known.
        row: of the dataset.
        drift: of the student since then, as it was measured last.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    by_teacher: int = 0
    log_probs: Tensor | None = None
    row: Mapping[str, Any] = field(default_factory=dict)
    drift: float = 0.0


def known_log_probs(written: Sequence[Rollout], width: int) -> Tensor:
    """[B, K] log-probabilities of tokens for the student that wrote them, NaN where not known."""
    found = torch.full((len(written), width), torch.nan)
    for row, rollout in zip(found, written, strict=True):
        if rollout.log_probs is not None:
            start = rollout.by_teacher
            row[start : start + len(rollout.log_probs)] = rollout.log_probs
    return found
