"""Supervised fine-tuning on worked solutions, beside distillation that takes about as long."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from lab.offpolicy import Problems
from lab.scores import held_out
from oprd import OPRDConfig
from oprd.evaluation.evaluate import evaluate_model
from oprd.runs.metrics import append_metrics
from oprd.runs.record import write_record

# Of distillation they have this meaning here too; what else it is told is of rollouts.
SHARED = (
    "output_dir", "seed", "per_device_train_batch_size", "learning_rate", "gradient_checkpointing",
    "use_cpu", "save_strategy", "disable_tqdm", "report_to",
)  # fmt: skip


def supervise(
    student: Path, task: str, problems: Problems, settings: Mapping[str, Any], updates: int
) -> None:
    """Fine-tune and leave what a run of distillation leaves.

    Args:
        student: the folder of what is trained.
        task: the module of what it is evaluated on.
        problems: prompts and solutions, `updates` times as many as distillation writes rollouts to.
        settings: of the run, as `OPRDConfig` has them; `max_steps` of distillation, which its curve
            counts.
        updates: for a step of distillation.
    """
    args = SFTConfig(
        **{name: settings[name] for name in SHARED},
        bf16=False,
        max_steps=settings["max_steps"] * updates,
        lr_scheduler_type=OPRDConfig.lr_scheduler_type,
        warmup_steps=OPRDConfig.warmup_steps,
        logging_steps=updates,
        completion_only_loss=True,
        packing=False,
    )
    trainer = SFTTrainer(
        model=str(student),
        args=args,
        train_dataset=Dataset.from_dict(
            dict(zip(("prompt", "completion"), map(list, zip(*problems, strict=True)), strict=True))
        ),
    )
    trainer.remove_callback(PrinterCallback)
    folder = Path(settings["output_dir"])
    write_record(folder, {"method": "supervised"}, dict(settings))
    trainer.add_callback(_Curve(trainer, folder, task, settings, updates))
    trainer.train()
    trainer.save_model()


class _Curve(TrainerCallback):
    """Logs accuracy on the held-out problems as distillation does."""

    def __init__(
        self, trainer: Any, folder: Path, task: str, settings: Mapping[str, Any], updates: int
    ) -> None:
        self._trainer, self._folder = trainer, folder
        self._task, self._samples = held_out(task, "reported"), settings["eval_samples"]
        self._limit, self._length = settings.get("eval_limit"), settings["max_completion_length"]
        self._every, self._updates = settings["eval_steps"], updates
        self._name = f"eval/{task}/avg@{self._samples}"

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate the student as it comes."""
        self._evaluate(0)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate where it is time."""
        step, rest = divmod(state.global_step, self._updates)
        if rest == 0 and (step % self._every == 0 or state.global_step == state.max_steps):
            self._evaluate(step)

    def _evaluate(self, step: int) -> None:
        evaluation = evaluate_model(
            self._trainer.model,
            self._trainer.processing_class,
            self._task,
            samples=self._samples,
            limit=self._limit,
            max_new_tokens=self._length,
            batch_size=512,
            progress=False,
        )
        append_metrics(self._folder, step, {self._name: evaluation.summary.average.value})
