"""What a run shows and what it leaves behind."""

from pathlib import Path
from typing import Any

from datasets import IterableDataset
from tqdm.auto import tqdm
from transformers import (
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from oprd.log import get_logger
from oprd.runs.checkpoints import earlier_run
from oprd.runs.metrics import append_metrics, begin_metrics
from oprd.runs.record import add_to_record, write_record

logger = get_logger(__name__)


def warn_of_earlier_run(folder: Path) -> None:
    """Say once, before anything is written, that a folder is used already."""
    if text := earlier_run(folder):
        logger.warning_once(text)


def warn_of_begun_stream(prompts: object, state: TrainerState) -> None:
    """Say that streamed prompts are not gone on with where they were, if they had begun again.

    Transformers takes a run without a length for one epoch, and goes on within the first alone.
    """
    if isinstance(prompts, IterableDataset) and (state.epoch or 0) > 1:
        logger.warning(
            "The stream of prompts had begun again before this checkpoint, which does not hold "
            "where it stood: the run goes on at its beginning, unlike one never stopped. A stream "
            "that does not end, such as dataset.repeat(None), goes on where it was."
        )


class TrainingProgress(ProgressCallback):
    """A progress bar with loss, cosine and remaining time; the other metrics go to files."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the last logged loss and cosine."""
        shown = {"loss": "loss", "rep_cosine": "cosine"}
        values = {label: f"{logs[key]:.4g}" for key, label in shown.items() if logs and key in logs}
        if self.training_bar is not None and values:
            self.training_bar.set_postfix(values)


class RunRecorder(TrainerCallback):
    """Writes `run.json` (settings and versions) and `metrics.jsonl` into the run folder."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts
        self._nothing_left = self._begun = False

    def add(self, folder: Path, facts: dict[str, Any], *, write: bool) -> None:
        """Take in what is known only now, and write it down where the run has a record already.

        A record that was there before it is another run's.
        """
        self.facts |= facts
        if write and self._begun:
            add_to_record(folder, facts)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the settings; a resumed run drops the metrics after its checkpoint.

        Raises:
            ValueError: the checkpoint is of a later step than the run has.
        """
        if state.global_step > state.max_steps > 0:
            raise ValueError(
                f"the checkpoint is of step {state.global_step}, and the run has "
                f"{state.max_steps} steps: go on from an earlier one, or set more."
            )
        self._nothing_left = 0 < state.max_steps == state.global_step
        if not state.is_world_process_zero:
            return
        if self._nothing_left:
            # A progress bar may stand there.
            tqdm.write(f"Nothing to train: all {state.max_steps} steps of the run are done.")
        folder = _folder(args)
        if state.global_step == 0:
            warn_of_earlier_run(folder)
        write_record(folder, self.facts, args.to_dict())
        self._begun = True
        begin_metrics(folder, state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append what was logged."""
        # Without a step there is nothing to sum up.
        summary = bool(logs) and "train_runtime" in logs
        if state.is_world_process_zero and logs and not (summary and self._nothing_left):
            append_metrics(_folder(args), state.global_step, logs)


def _folder(args: TrainingArguments) -> Path:
    assert args.output_dir is not None
    return Path(args.output_dir)
