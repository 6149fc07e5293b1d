"""The official code's positions."""

from typing import Any

from torch.nn.functional import pad

from oprd import OPRDConfig
from oprd.rollouts.counts import select


def select_consumed(output: dict[str, Any], args: OPRDConfig) -> None:
    """Supervise one position later: the state after reading ŷ_t, as the official code has it.

    The state that predicts the first token is never supervised, and the one after the last is. In
    terms of predicting states the mask moves by one column, of which there is one more.
    """
    select(output, args)
    # Whatever stands in the new column is masked.
    output["completion_ids"] = pad(output["completion_ids"], (0, 1))
    output["completion_mask"] = pad(output["completion_mask"], (0, 1))
    output["positions"] = pad(output["positions"], (1, 0))
