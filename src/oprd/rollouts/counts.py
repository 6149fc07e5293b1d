"""What of a generation batch is supervised, and how much that is.

Letters: B sequences, K response tokens, T all tokens.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from oprd.core.positions import PositionSpec, select_positions
from oprd.core.reduction import Reduction, supervised_count
from oprd.models.batch import compared, written
from oprd.models.reading import View
from oprd.settings.run import OPRDConfig


class BatchCounts(NamedTuple):
    """Sums over a generation batch, of one process or of all.

    Attributes:
        positions: what the representation term is divided by.
        responses: what the output term is divided by.
        supervised: sequences with a supervised position.
        empty: sequences without a response.
        tokens: real tokens of prompts and responses.
        sequences: all of them.
    """

    positions: Tensor
    responses: Tensor
    supervised: Tensor
    empty: Tensor
    tokens: Tensor
    sequences: Tensor


def select(output: dict[str, Any], args: OPRDConfig) -> None:
    """Add the supervised positions to a generation batch of TRL's."""
    spec = cast(PositionSpec, args.positions)
    output["positions"] = select_positions(written(output), spec, args.position_k)


def count(output: dict[str, Any], reduction: Reduction) -> Tensor:
    """This process's `BatchCounts` of a generation batch, as one tensor in their order."""
    mask, response, positions = output["completion_mask"], compared(output), output["positions"]
    counts = BatchCounts(
        positions=supervised_count(positions, reduction),
        responses=supervised_count(response, reduction),
        supervised=supervised_count(positions, "sequence"),
        empty=(~mask.bool().any(dim=1)).sum().float(),
        tokens=output["prompt_mask"].sum().float() + mask.sum().float(),
        sequences=torch.tensor(float(len(mask)), device=mask.device),
    )
    return torch.stack(counts)


def supervised_window(view: View, args: OPRDConfig) -> Tensor:
    """[B, T] bool: the rows that a term supervises, with the prompt of a response shorter than k.

    Such a response is read whole, with an exact gradient. Where all tokens are supervised, as an
    output term does, the prompt is what comes before the window of any response.
    """
    if args.output is not None:
        return view.response
    if args.positions not in ("first_k", "last_k"):
        return view.rows
    length = view.response.sum(dim=1, keepdim=True)
    shorter = (length > 0) & (length < args.position_k)
    return view.rows | (shorter & view.attention_mask.bool())
