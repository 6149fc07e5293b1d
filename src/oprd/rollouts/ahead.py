"""Rollouts of several steps, written at once: the more sequences, the less each of them costs."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from oprd.rollouts.written import Rollout

Row = TypeVar("Row")


class Window(NamedTuple):
    """Which rollouts a micro-step is about, and which update on them.

    Between two times of writing there are `ahead` steps' rollouts, on each of which `updates` are
    made, in `accumulation` micro-steps each. Micro-steps are counted from 0.

    Attributes:
        accumulation: micro-steps of an update.
        updates: on the same rollouts.
        ahead: steps whose rollouts are written at once.
    """

    accumulation: int = 1
    updates: int = 1
    ahead: int = 1

    @property
    def micro_steps(self) -> int:
        """Between two times of writing."""
        return self.accumulation * self.updates * self.ahead

    def use(self, micro_step: int) -> int:
        """Which update on the same rollouts it belongs to, from 0."""
        return micro_step // self.accumulation % self.updates

    def is_last_use(self, micro_step: int) -> bool:
        """Whether other rollouts come after it."""
        return self.use(micro_step) == self.updates - 1

    def measures_drift(
        self, micro_step: int, *, recorded: bool = False, replays: bool = False
    ) -> bool:
        """Whether an update measures how likely the student's tokens are to it.

        It is the last one of several on the same rollouts; of those that were written ahead, the
        last one before others are written; and the first one, if it was not recorded as they were
        written, or where some were written for earlier steps.

        Args:
            micro_step: of it.
            recorded: whether it was recorded as rollouts were written.
            replays: whether rollouts of earlier steps are among those of each.
        """
        first, last = self.use(micro_step) == 0, self.is_last_use(micro_step)
        several = self.updates > 1
        ends = (micro_step // self.accumulation + 1) % (self.updates * self.ahead) == 0
        oldest = recorded and self.ahead > 1 and ends
        return (several and last) or oldest or (first and (replays or (several and not recorded)))

    def writes_ahead(self, micro_step: int) -> bool:
        """Whether rollouts of several steps are written before it."""
        return self.ahead > 1 and micro_step % self.micro_steps == 0

    def turn(self, rows: Sequence[Row], micro_step: int) -> list[Row]:
        """Of the rows that are written at once, those of the step that it belongs to."""
        part = len(rows) // self.ahead
        turn = micro_step // (self.accumulation * self.updates) % self.ahead
        return list(rows[turn * part : (turn + 1) * part])


class WrittenAhead:
    """What was written for several steps and waits for its turn."""

    def __init__(self) -> None:
        self._waiting: list[Rollout] = []

    def keep(self, written: Sequence[Rollout]) -> None:
        """Keep it, in the order of its turns; what was left is let go."""
        self._waiting = list(written)

    def take(self, prompt_ids: list[list[int]]) -> list[Rollout]:
        """What was written for prompts, the next of those that wait.

        Raises:
            RuntimeError: it was written for others, or for fewer.
        """
        taken = self._waiting[: len(prompt_ids)]
        if [rollout.prompt_ids for rollout in taken] != prompt_ids:
            raise RuntimeError(
                f"{len(prompt_ids)} prompts have their turn, and the {len(self._waiting)} rollouts "
                "that were written ahead are for others."
            )
        self._waiting = self._waiting[len(prompt_ids) :]
        return taken
