"""Which rollouts and positions a fit reads, which of them are held out, and in what batches.

Letters: K response tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from oprd.calibration.rollouts import Rollout
from oprd.core.positions import PositionSpec, select_positions
from oprd.models.reread import Reread

# One rollout of so many is held out: neighbours in a rollout resemble each other, so that rows of
# one rollout never stand on both sides.
HOLD_OUT_EVERY = 5


class Taught(NamedTuple):
    """A rollout as a teacher with a tokenizer of its own reads it.

    Attributes:
        prompt_ids: the prompt's tokens.
        response: the response, and which states meet.
    """

    prompt_ids: list[int]
    response: Reread


# None where the teacher reads the student's tokens.
Teach = Callable[[Rollout], Taught] | None


@dataclass(frozen=True, eq=False)
class Selection:
    """A rollout and which of its response tokens are read.

    Attributes:
        rollout: the rollout.
        positions: [K] bool, at least one of them true.
        taught: as the teacher reads it in tokens of its own; None in the student's.
    """

    rollout: Rollout
    positions: Tensor
    taught: Taught | None = None

    @property
    def rows(self) -> int:
        """How many rows it gives."""
        return int(self.positions.sum())

    @property
    def length(self) -> int:
        """How many tokens are read for them."""
        return len(self.rollout.prompt_ids) + len(self.rollout.completion_ids)


def select_rows(
    rollouts: Sequence[Rollout],
    positions: PositionSpec,
    k: int,
    max_rows: int | None = None,
    teach: Teach = None,
) -> list[Selection]:
    """What is read of each rollout, in the order of the prompts; an empty response gives nothing.

    Args:
        rollouts: what the student wrote.
        positions: which response tokens are supervised.
        k: how many, for `"first_k"` and `"last_k"`.
        max_rows: stop at so many rows, within a rollout if need be.
        teach: reads a rollout as the teacher does, whose states may meet at some tokens alone.
    """
    selections: list[Selection] = []
    left = max_rows
    for rollout in sorted(rollouts, key=lambda rollout: rollout.prompt):
        mask = torch.ones(1, len(rollout.completion_ids), dtype=torch.bool)
        selected = select_positions(mask, positions, k)[0]
        taught = None if teach is None else teach(rollout)
        if taught is not None:
            selected &= taught.response.met()
        if left is not None:
            selected &= selected.cumsum(0) <= left
            left -= int(selected.sum())
        if selected.any():
            selections.append(Selection(rollout, selected, taught))
    return selections


def draw_rows(selections: Sequence[Selection], most: int, seed: int) -> list[Selection]:
    """At most so many of the rows, each as likely as any other; what loses all of its is left out.

    Args:
        selections: what could be read.
        most: all rows are kept where there are no more.
        seed: of the draw, which is made on the CPU.
    """
    counts = [selection.rows for selection in selections]
    if sum(counts) <= most:
        return list(selections)
    order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(seed))
    drawn = torch.zeros(sum(counts), dtype=torch.bool)
    drawn[order[:most]] = True
    kept: list[Selection] = []
    for selection, own in zip(selections, drawn.split(counts), strict=True):
        positions = selection.positions.clone()
        positions[selection.positions] = own
        if own.any():
            kept.append(replace(selection, positions=positions))
    return kept


def hold_out(selections: Sequence[Selection]) -> tuple[list[Selection], list[Selection]]:
    """What is fitted on, and a fifth to judge the fit by.

    Raises:
        ValueError: there are fewer than two.
    """
    if len(selections) < 2:
        raise ValueError(
            f"{len(selections)} rollouts with supervised positions: a fit needs one and another to "
            "judge it by. Add prompts."
        )
    # The second of five, so that two rollouts are enough.
    held = [n % HOLD_OUT_EVERY == 1 for n in range(len(selections))]
    fit = [selection for selection, out in zip(selections, held, strict=True) if not out]
    return fit, [selection for selection, out in zip(selections, held, strict=True) if out]


def batches(
    selections: Sequence[Selection], size: int, process: int, processes: int
) -> list[list[Selection]]:
    """This process's batches, the longest rollouts first: memory runs out early or not at all."""
    ordered = sorted(selections, key=lambda selection: -selection.length)[process::processes]
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]
