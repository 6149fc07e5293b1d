"""Where the rollouts of a batch are from: now, ahead of their step, the teacher, earlier steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from oprd.models.batch import BY_TEACHER, PLACE, WRITTEN_LOG_PROBS, MicroBatch
from oprd.rollouts.ahead import WrittenAhead
from oprd.rollouts.replay import Replay, learn_drifts
from oprd.rollouts.written import Rollout, known_log_probs
from oprd.settings.run import OPRDConfig

# Of `tell`.
SUMS = 4


class Origins:
    """The rollouts of a process as they were written, for batches to be made of.

    Args:
        args: of the run.

    Attributes:
        ahead: what was written for later steps.
        replay: rollouts of earlier steps, where they are learned from again.
        batch: the last training batch, in its order.
        trains: whether the rollouts that are asked for are to be learned from.
        records: whether it is recorded how likely tokens are to the student that draws them.
    """

    def __init__(self, args: OPRDConfig) -> None:
        self._args = args
        self.ahead = WrittenAhead()
        self.replay: Replay | None = None
        self.batch: list[Rollout] = []
        self.trains = True
        self.records = False

    def forget(self) -> None:
        """Begin anew, without rollouts of earlier steps."""
        if self.replay is not None:
            self.replay.forget()

    def add_replayed(
        self,
        prompt_ids: list[list[int]],
        completions: list[list[int]],
        rows: Sequence[Mapping[str, Any]],
        step: int,
    ) -> None:
        """Put rollouts of earlier steps behind those that were written for a batch.

        Args:
            prompt_ids: of the batch, to which theirs are added.
            completions: likewise.
            rows: of the dataset, for which the others were written.
            step: of the run, from 0.
        """
        if self.replay is None:
            return
        again = self.replay.mix(self.batch, rows, step)
        self.batch = [*self.batch, *again]
        prompt_ids += [rollout.prompt_ids for rollout in again]
        completions += [list(rollout.response_ids) for rollout in again]

    def learn(self, batch: MicroBatch, log_probs: Tensor) -> None:
        """Take in how likely the student's tokens of a micro-batch are to it now, where it counts.

        Args:
            batch: that an update was made on.
            log_probs: [M], of the tokens that the student drew.
        """
        if self.replay is None or batch.place is None:
            return
        parts = log_probs.float().cpu().split(batch.own.sum(dim=1).tolist())
        learn_drifts([self.batch[place] for place in batch.place.tolist()], parts)

    def tell(self, output: dict[str, Any]) -> Tensor:
        """Say in a generation batch what of it is from where, if it is one to learn from.

        Returns:
            [4]: sums over this process: tokens that the teacher wrote, and all; rollouts drawn from
            earlier ones, and those of them that were dropped.
        """
        mask, batch, sums = output["completion_mask"], self.batch, torch.zeros(SUMS)
        if not batch or not self.trains:
            return sums
        sums[1] = mask.sum()
        if self._args.teacher_prefix is not None:
            begun = torch.tensor([rollout.by_teacher for rollout in batch])
            output[BY_TEACHER] = begun.to(mask.device)
            sums[0] = begun.sum()
        if self.replay is not None or self._args.curriculum:
            output[PLACE] = torch.arange(len(batch), device=mask.device)
        if self.replay is not None:
            sums[2], sums[3], self.replay.dropped = self.replay.drawn, self.replay.dropped, 0
        if self.replay is not None or self.records:
            output[WRITTEN_LOG_PROBS] = known_log_probs(batch, mask.shape[1]).to(mask.device)
        return sums

    def metrics(
        self, output: Mapping[str, Any], sums: Tensor, sequences: float
    ) -> dict[str, float]:
        """What is logged of `tell`'s sums over all processes, and of so many sequences."""
        by_teacher, tokens, drawn, dropped = sums.tolist()
        found = {}
        if BY_TEACHER in output:
            found["completions/teacher_ratio"] = by_teacher / max(tokens, 1)
        if PLACE in output and self.replay is not None:
            found |= {"replay/ratio": drawn / sequences, "replay/dropped": dropped}
        return found
