"""A run that looks at its own curves for false progress."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from oprd.calibration.processes import from_main
from oprd.log import get_logger
from oprd.runs.false_progress import Alarm, Watch
from oprd.runs.metrics import METRICS, read_metrics
from oprd.runs.record import BEST

if TYPE_CHECKING:
    from oprd.settings.run import OPRDConfig
    from oprd.training.trainer import OPRDTrainer

# What a run's record calls the alarm.
FALSE_PROGRESS = "false_progress"

logger = get_logger(__name__)


class FalseProgress(TrainerCallback):
    """Warns once, writes both curves into the run's record and, where asked, ends the run.

    Args:
        trainer: whose log it listens to.
        args: how long the window is, and whether to end the run.
    """

    def __init__(self, trainer: "OPRDTrainer", args: "OPRDConfig") -> None:
        self._trainer, self._args = trainer, args
        self._begin()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin anew, or with what a resumed run had logged by then."""
        self._begin()
        folder = Path(cast(str, self._args.output_dir))
        lines: list[dict[str, Any]] = []
        if state.global_step > 0 and state.is_world_process_zero and (folder / METRICS).is_file():
            lines = [line for line in read_metrics(folder) if line["step"] <= state.global_step]
        # The others may have another disk.
        for line in from_main(lambda: lines):
            alarm = self._watch.add(line["step"], line)
            if alarm is not None and not self._told:
                self._record(alarm)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at what is logged, the same in every process."""
        alarm = self._watch.add(state.global_step, logs or {})
        if alarm is None:
            return
        going_on = state.global_step < state.max_steps and not control.should_training_stop
        stops = self._args.stop_on_false_progress and going_on
        if stops:
            control.should_training_stop = True
        if self._told and not stops:
            return
        self._record(alarm)
        way = (
            f"The run ends; the student with the highest {self._args.keep_best} is in {BEST}."
            if stops
            else "Hand over to an output_loss by representation_weight and output_weight, lower "
            "the learning rate, or set stop_on_false_progress and keep_best."
        )
        logger.warning(f"False progress: {alarm}. {way}")

    def _begin(self) -> None:
        args = self._args
        changing = any(stage.weights.change for stage in args.objectives())
        self._watch = Watch(args.false_progress_window, args.keep_best, loss=not changing)
        self._told = False

    def _record(self, alarm: Alarm) -> None:
        self._told = True
        cast(Any, self._trainer).record({FALSE_PROGRESS: alarm._asdict()})
