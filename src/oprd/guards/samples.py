"""Rollouts that are kept while a student trains, with how far both models part at each token.

Nothing is computed for them: the cosines are those that the loss compared rows by. In an update
that compares no states they are left out.

Letters: B sequences, K response tokens, N supervised positions.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from oprd.models.tokenizers import token_texts
from oprd.runs.samples import PositionCurve, Sample, append_samples, begin_samples

if TYPE_CHECKING:
    from oprd.models.batch import MicroBatch
    from oprd.settings.run import OPRDConfig

# Rollouts of a step.
KEPT = 4
# Groups of positions of a curve.
GROUPS = 64


class SampleKeeper(TrainerCallback):
    """Keeps rollouts of the main process at the first step, every `sample_steps` and the last one.

    Args:
        args: of the run.
        tokenizer: the student's.
        writes: whether this process writes into the run folder.
    """

    def __init__(self, args: "OPRDConfig", tokenizer: Any, *, writes: bool) -> None:
        self._folder, self._every = Path(cast(str, args.output_dir)), args.sample_steps
        self._tokenizer, self._writes = tokenizer, writes
        self._samples: list[Sample] = []
        self._sums = torch.zeros(2, 0)

    def add(
        self,
        state: TrainerState,
        inputs: dict[str, Any],
        batch: "MicroBatch",
        cosine: Tensor | None,
    ) -> None:
        """Take in a micro-batch of an update that is being made, where its step is kept.

        Args:
            state: of the trainer.
            inputs: TRL's micro-batch.
            batch: the same.
            cosine: [N], at its supervised positions; None where states were not compared.
        """
        step = state.global_step + 1
        if not self._writes or not self._due(step, state.max_steps):
            return
        grid = torch.full(batch.positions.shape, torch.nan)
        if cosine is not None:
            grid[batch.positions.cpu()] = cosine.float().cpu()
            self._add_positions(grid)
        for row in range(min(KEPT - len(self._samples), len(grid))):
            self._samples.append(self._sample(step, inputs, batch, grid, row))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A resumed run drops what was kept after its checkpoint, a new one all of it."""
        self._forget()
        if self._writes:
            begin_samples(self._folder, state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write what was kept of the step."""
        if self._samples:
            append_samples(self._folder, self._samples, self._curve(state.global_step))
        self._forget()

    def _due(self, step: int, last: int) -> bool:
        return self._every > 0 and (step in (1, last) or step % self._every == 0)

    def _forget(self) -> None:
        self._samples, self._sums = [], torch.zeros(2, 0)

    def _add_positions(self, grid: Tensor) -> None:
        """Add sums [K] and counts [K] over the sequences of a micro-batch."""
        there = ~grid.isnan()
        sums = torch.stack([grid.nan_to_num().sum(dim=0), there.sum(dim=0).float()])
        longer, shorter = sorted((self._sums, sums), key=lambda part: -part.shape[1])
        self._sums = longer.clone()
        self._sums[:, : shorter.shape[1]] += shorter

    def _curve(self, step: int) -> PositionCurve | None:
        total = self._sums.shape[1]
        if not total:
            return None
        size = -(-total // GROUPS)
        parts = [
            (start, *self._sums[:, start : start + size].sum(dim=1).tolist())
            for start in range(0, total, size)
        ]
        kept = [(start + 1, cosine / count, int(count)) for start, cosine, count in parts if count]
        return PositionCurve(step, *map(list, zip(*kept, strict=True))) if kept else None

    def _sample(
        self, step: int, inputs: dict[str, Any], batch: "MicroBatch", grid: Tensor, row: int
    ) -> Sample:
        prompt = inputs["prompt_ids"][row][inputs["prompt_mask"][row].bool()].tolist()
        there = inputs["completion_mask"][row].bool()
        ids = batch.response_ids[row][there].tolist()
        cosines = grid[row][there.cpu()].tolist()
        return Sample(
            step,
            str(self._tokenizer.decode(prompt)),
            token_texts(self._tokenizer, ids),
            batch.response[row][there].tolist(),
            batch.positions[row][there].tolist(),
            [round(cosine, 5) if cosine == cosine else None for cosine in cosines],
        )
