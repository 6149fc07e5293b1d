"""The student on tasks while it trains: figures in the log, samples on disk, the best student kept.

With several processes each draws a share of the samples and the main one grades them. Training is
left as it was: the draws have random numbers of their own, and the mode is put back.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from accelerate import Accelerator
from datasets import Dataset
from transformers import (
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.distributed import DistributedBackend
from trl.models.utils import unwrap_model_for_generation

from oprd.calibration.processes import from_main
from oprd.evaluation.evaluate import evaluate
from oprd.evaluation.graders import Grader
from oprd.evaluation.grading import Grade
from oprd.evaluation.metrics import accuracy_names
from oprd.evaluation.records import sample_file
from oprd.evaluation.tasks.base import Task, prompt_text
from oprd.evaluation.tasks.load import load_task
from oprd.evaluation.tasks.readable import readable
from oprd.extras import require
from oprd.log import get_logger
from oprd.models.generate import TransformersEngine
from oprd.models.sampling import Sampling
from oprd.models.shared_engine import SharedEngine, exchange, stopping_together
from oprd.runs.best import PARTIAL, best_so_far, put_back_best, replace_best
from oprd.runs.lines import read_lines
from oprd.runs.metrics import METRICS
from oprd.runs.record import BEST, BEST_RECORD
from oprd.settings.run import OPRDConfig
from oprd.training.bridges import template_options

if TYPE_CHECKING:
    from oprd.training.trainer import OPRDTrainer

# Within the run folder: the samples by step.
SAMPLES = "evaluations"

logger = get_logger(__name__)


class TaskEvaluation(TrainerCallback):
    """Evaluates the student before the first step, every `eval_steps` and after the last one.

    Args:
        trainer: whose student it is, unwrapped and saved as TRL does it.
        args: on what it is evaluated, and how.
        tokenizer: the student's.
        interrupted: whether the run is being ended, and has no time for an evaluation.

    Raises:
        ValueError: a task cannot be loaded, has a problem that the chat template refuses, or has no
            figure `keep_best`.
        ImportError: a package that figures or a task need is not installed.
    """

    def __init__(
        self,
        trainer: "OPRDTrainer",
        args: OPRDConfig,
        tokenizer: PreTrainedTokenizerBase,
        interrupted: Callable[[], object],
    ) -> None:
        require("scipy.stats", "report", "eval_tasks")
        self._trainer, self._args, self._tokenizer = trainer, args, tokenizer
        self._interrupted = interrupted
        tasks = [load_task(name, limit=args.eval_limit) for name in args.eval_task_names]
        self._tasks = [readable(task, {"the student": tokenizer}) for task in tasks]
        self._sampling = Sampling(
            samples=args.eval_samples,
            temperature=args.eval_temperature,
            max_new_tokens=args.eval_max_new_tokens or cast(int, args.max_completion_length),
            seed=args.seed,
        )
        # Kept from evaluation to evaluation: one that has graded before may fail on an odd answer.
        self._graders = {task.name: Grader(task) for task in self._tasks}
        self._last_step: int | None = None
        self._best, self._waited = float("-inf"), 0
        figures = [
            f"{t.name}/{name}" for t in self._tasks for name in accuracy_names(args.eval_samples)
        ]
        if args.keep_best is not None and args.keep_best not in figures:
            raise ValueError(
                f"keep_best must be one of {', '.join(figures)}, got {args.keep_best!r}."
            )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget what a run left behind that is not gone on with, and evaluate the student."""
        if self._accelerator.is_main_process:
            self._warn_of_shared_prompts()
            for folder in self._folder.glob(f"{SAMPLES}/step-*"):
                if int(folder.name.rpartition("-")[2]) > state.global_step or not state.global_step:
                    shutil.rmtree(folder)
        self._accelerator.wait_for_everyone()
        if state.global_step == 0:
            self._evaluate(state, control)
            return
        done, self._best, self._waited = from_main(lambda: self._so_far(state.global_step))
        # A signal leaves no time for the last one, and a task may be new.
        if self._due(state) and (left := [task for task in self._tasks if task.name not in done]):
            for task in left if self._accelerator.is_main_process else ():
                # Of an evaluation that nothing was logged of, with other settings perhaps.
                self._samples(task, state.global_step).unlink(missing_ok=True)
            self._evaluate(state, control, left)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate where it is due, the last step included, before a checkpoint is saved."""
        if self._due(state) and not self._interrupted():
            self._evaluate(state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate the student of a run that another callback stopped."""
        if self._last_step not in (None, state.global_step) and not self._interrupted():
            self._evaluate(state, control)

    @property
    def _accelerator(self) -> Accelerator:
        return self._trainer.accelerator

    @property
    def _folder(self) -> Path:
        return Path(cast(str, self._args.output_dir))

    def _due(self, state: TrainerState) -> bool:
        every = self._args.eval_steps and state.eval_steps
        return (
            bool(every and state.global_step % every == 0) or state.global_step >= state.max_steps
        )

    def _so_far(self, step: int) -> tuple[set[str], float, int]:
        """The tasks on which a run was evaluated at a step, and its best up to there."""
        put_back_best(self._folder, step)
        lines = read_lines(self._folder / METRICS)
        names = [name for line in lines if line["step"] == step for name in line]
        done = {t.name for t in self._tasks if any(n.startswith(f"eval/{t.name}/") for n in names)}
        return done, *best_so_far(self._folder, str(self._args.keep_best), step)

    def _evaluate(
        self, state: TrainerState, control: TrainerControl, tasks: Sequence[Task] | None = None
    ) -> None:
        figures: dict[str, float] = {}
        for task in self._tasks if tasks is None else tasks:
            found = self._evaluate_on(task, state.global_step)
            figures |= {f"{task.name}/{name}": value for name, value in found.items()}
        self._last_step = state.global_step
        # Not TRL's own `log`, which averages the training metrics collected so far.
        # Logging clears the shared flag, on which the step's own metrics wait.
        should_log = control.should_log
        Trainer.log(self._trainer, {f"eval/{name}": value for name, value in figures.items()})
        self._trainer.control.should_log = control.should_log = should_log
        wanted = self._args.keep_best
        # maj@n has no value where a grader reads no answers.
        if wanted is None:
            return
        if figures.get(wanted, self._best) > self._best:
            self._best, self._waited = figures[wanted], 0
            self._save_best({"figure": wanted, "value": self._best, "step": state.global_step})
        elif wanted in figures:
            self._waited += 1
        self._stop_if_due(wanted, state, control)

    def _stop_if_due(self, wanted: str, state: TrainerState, control: TrainerControl) -> None:
        """End the run where the figure has not risen for as long as was to be waited."""
        patience = self._args.eval_patience
        if patience is None or self._waited < patience or state.global_step >= state.max_steps:
            return
        control.should_training_stop = True
        logger.warning(
            f"The run ends at step {state.global_step}: {wanted} was not above {self._best:.1%} in "
            f"{self._waited} evaluations (eval_patience={patience}). The student that reached it "
            f"is in {BEST}."
        )

    def _evaluate_on(self, task: Task, step: int) -> dict[str, float]:
        """The figures of one task, the same in every process."""
        trainer, accelerator = self._trainer, self._accelerator
        output = self._samples(task, step)
        with (
            unwrap_model_for_generation(
                trainer.model_wrapped,
                accelerator,
                gather_deepspeed3_params=self._args.ds3_gather_for_generation,
                gradient_checkpointing_kwargs=cast(
                    dict[str, Any] | None, self._args.gradient_checkpointing_kwargs
                ),
            ) as student,
            DistributedBackend(accelerator).summon_full_params(
                trainer.model_wrapped, recurse=False
            ),
        ):
            batch_size = self._args.per_device_eval_batch_size
            engine = TransformersEngine(student, self._tokenizer, batch_size)
            is_main = accelerator.is_main_process
            # The main process alone grades, so that a grader's time limit cannot divide them.
            with stopping_together():
                evaluation = evaluate(
                    SharedEngine(engine, accelerator),
                    task if is_main else ungraded(task),
                    self._sampling,
                    {"model": output.parent.name, "revision": None, "weights": None},
                    output if is_main else None,
                    progress=is_main and not self._args.disable_tqdm,
                    chat_template_kwargs=template_options(self._args),
                    grader=self._graders[task.name] if is_main else None,
                )
                figures = evaluation.figures() if is_main else {}
        return exchange(figures)[0]

    def _samples(self, task: Task, step: int) -> Path:
        return sample_file(self._folder / SAMPLES, f"step-{step:06d}", task.name)

    def _save_best(self, record: dict[str, Any]) -> None:
        """Replace the best student: the old one is deleted when the new one is in its place.

        That is so once its files are hashed, beside the next step.
        """
        saved = self._folder / PARTIAL
        self._trainer.checkpoints.wait()
        if self._accelerator.is_main_process:
            shutil.rmtree(saved, ignore_errors=True)
        self._accelerator.wait_for_everyone()
        self._trainer.save_model(str(saved), _internal_call=True)
        if self._accelerator.is_main_process:
            (saved / BEST_RECORD).write_text(json.dumps(record) + "\n")
            self._trainer.checkpoints.complete(saved, partial(replace_best, self._folder))

    def _warn_of_shared_prompts(self) -> None:
        dataset = self._trainer.train_dataset
        if not isinstance(dataset, Dataset):
            return
        trained = {prompt_text(prompt) for prompt in dataset["prompt"]}
        for task in self._tasks:
            shared = sum(prompt_text(problem.prompt) in trained for problem in task.problems)
            if shared:
                logger.warning(
                    f"{shared} of the {len(task.problems)} problems of {task.name} are among the "
                    "training prompts: its figures do not say what the student does on new ones."
                )


def ungraded(task: Task) -> Task:
    """A task that costs nothing to grade, for a process whose grades nobody reads."""
    return replace(task, grade=lambda text, gold: Grade(False, "wrong"), grade_problem=None)
