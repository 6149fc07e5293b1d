"""OPRD on TRL: its distillation trainer, with states in the place of logits.

TRL writes the rollouts, splits them into micro-batches and steps the optimizer. Three of its
methods are the seam: `_generate_and_score_completions`, where positions are selected and counted
once for a generation batch; `_compute_loss`, where the teacher reads and the student follows; and
`compute_loss`, through which that runs where FSDP and DeepSpeed materialise the weights. What
happens there is in `batch`, `reading` and `update`.
"""

import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    ProgressCallback,
    TrainerCallback,
)
from trl.trainer.utils import get_config_model_id

from oprd.core.capture import num_layers
from oprd.supported import check_transformers
from oprd.training.batch import MicroBatch
from oprd.training.bridge.models import FitModels
from oprd.training.bridge.obtain import load_bridges
from oprd.training.callbacks import RunRecorder, TrainingProgress
from oprd.training.checks import check_streaming
from oprd.training.config import OPRDConfig
from oprd.training.metrics import StepStatistics, cost_metrics
from oprd.training.reading import Reading, TeacherReader
from oprd.training.staged import StagedTrainer
from oprd.training.sums import drift_sums
from oprd.training.task_evaluation import TaskEvaluation
from oprd.training.teacher import (
    TeacherSource,
    obtain_teacher,
    prepare_teacher,
    without_teacher_adapter,
)
from oprd.training.tokenizers import check_tokenizers
from oprd.training.update import Needs


class OPRDTrainer(StagedTrainer):
    """Trains a student by on-policy representation distillation (Eqs. 6 and 7).

    The student writes rollouts, the frozen teacher reads them, and the student's hidden states are
    pulled to the teacher's. An output-space loss may come beside it, or take its place. Neither
    model's LM head is called in an update.

    Args:
        model: the student: a path or hub id, a causal language model, or a PEFT model.
        teacher_model: the teacher: a path or hub id of a model or of a PEFT adapter, or a model.
            Defaults to `args.teacher_model_name_or_path`. An adapter on the base that the student
            keeps frozen is loaded beside the student's own; the base is held once.
        args: settings.
        train_dataset: rows with a `prompt`, plain text or chat messages.
        eval_dataset: likewise.
        processing_class: the student's tokenizer, loaded from its path by default.
        callbacks: further callbacks.
        optimizers: as in `transformers.Trainer`.
        quantization_config: as in `trl.DistillationTrainer`.
        peft_config: train a new adapter of this kind instead of all weights.
        tools: as in `trl.DistillationTrainer`.
        teacher_processing_class: the teacher's tokenizer, loaded from its path by default.

    Raises:
        ValueError: a setting does not fit the models, the teacher reads the student's token ids as
            other tokens, or a prompt does not fit the context.
        ImportError: Transformers is not of the tested range.
    """

    _tag_names = ["trl", "oprd"]  # noqa: RUF012 # TRL's own class attribute
    _name = "OPRD"
    _paper = {  # noqa: RUF012 # TRL's own class attribute
        "title": "OPRD: On-Policy Representation Distillation",
        "id": "2606.06021",
        "citation": textwrap.dedent("""\
            @misc{oprd2026,
                title         = {{OPRD: On-Policy Representation Distillation}},
                year          = 2026,
                eprint        = {2606.06021},
                archivePrefix = {arXiv},
            }"""),
    }

    def __init__(
        self,
        model: str | PreTrainedModel | Any,
        teacher_model: str | PreTrainedModel | None = None,
        args: OPRDConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any = None,
        peft_config: Any = None,
        tools: list[Callable] | None = None,
        *,
        teacher_processing_class: PreTrainedTokenizerBase | None = None,
    ) -> None:
        check_transformers()
        if args is None:
            name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = OPRDConfig(f"{Path(name).name or 'student'}-OPRD")
        if not isinstance(args, OPRDConfig):
            raise TypeError(f"args must be an OPRDConfig, got {type(args).__name__}.")
        teacher_model = teacher_model or args.teacher_model_name_or_path
        if teacher_model is None:
            raise ValueError("a teacher is needed: pass teacher_model, or set its path in args.")
        check_streaming(train_dataset, args)
        source = TeacherSource.resolve(teacher_model, args)
        bridges = load_bridges(args)
        # TRL compares the sizes of the vocabularies of a teacher that it is given. What must agree
        # here is the meaning of the ids, so the teacher is prepared below.
        super().__init__(
            model=model,
            teacher_model=None,
            args=args,
            train_dataset=cast(Dataset, train_dataset),  # TRL takes streamed ones too
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
            tools=tools,
        )
        self.args: OPRDConfig = args
        teacher = obtain_teacher(self.student, source, args)
        self.shares_base = teacher is self.student
        same_meaning = self.shares_base and teacher_processing_class is None
        if not same_meaning:
            same_meaning = check_tokenizers(
                self._tokenizer, teacher_processing_class, teacher, source.model, args
            )
        self._bind_objectives(teacher, same_meaning=same_meaning)
        self._expect_rollouts(teacher)
        models = FitModels(self.student, teacher, self._tokenizer, teacher_processing_class)
        if bridges:
            models.identify()
        self._statistics = StepStatistics(
            self.pairs, (num_layers(self.student), num_layers(teacher))
        )
        self.teacher_model = (
            None if self.shares_base else prepare_teacher(teacher, self.accelerator)
        )
        self._teacher = TeacherReader(
            self.teacher_model, self.accelerator, self._forward_redirection
        )
        self._set_callbacks(source, self._enter_bridges(bridges, models))

    def _set_callbacks(self, source: TeacherSource, bridges: dict[str, Any]) -> None:
        if not self.args.disable_tqdm:
            self.remove_callback(ProgressCallback)
            self.add_callback(TrainingProgress)
        facts = {
            "student": self.student.config.name_or_path,
            "teacher": source.adapter or source.model,
            "teacher_base": source.model if source.adapter else None,
            "one_base_serves_both": self.shares_base,
            "layer_pairs": [list(pair) for pair in self.pairs],
            **bridges,
        }
        self.add_callback(RunRecorder(facts))
        if self.args.eval_task_names:
            self.add_callback(TaskEvaluation(self))

    # --- the loss -------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ):
        """The micro-batch's share of the loss of the whole batch.

        Gradients are averaged over processes by DDP and FSDP, hence the factor.
        """
        student = self.accelerator.unwrap_model(model)
        # Bound, because wrappers copy the mappings among their arguments and cast what is in them.
        loss_of = partial(self._compute_loss, student, inputs, num_items_in_batch)
        share: Tensor = self._forward_redirection(model, student, loss_of)
        if not self.student.training:
            self._log_statistics("eval")
        elif self.accelerator.sync_gradients:
            # Before backward, because DeepSpeed steps the optimizer inside it.
            self._log_statistics("train")
        loss = share * self.accelerator.num_processes
        return (loss, None) if return_outputs else loss

    def _compute_loss(  # pyright: ignore[reportIncompatibleMethodOverride] # for our compute_loss
        self,
        unwrapped_student: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None,
    ) -> Tensor:
        """The micro-batch's objective: one teacher forward, one student forward, terms summed."""
        batch = MicroBatch.of(inputs)
        needs = self._update.needs(self._diagnosing(), drift=self._measures_drift())
        # Accelerate's own autocast is on the models' forward, which is not what runs here. Each
        # model has its own: what that casts of the model's weights is held until it ends.
        with torch.no_grad(), self._timed("teacher"), self.accelerator.autocast():
            teacher = self._read_teacher(unwrapped_student, batch, needs, inputs)
            head = self._teacher.head(unwrapped_student) if needs.last else None
        with self.accelerator.autocast():
            result = self._update(unwrapped_student, batch, teacher, head, needs)
        # Here, because FSDP casts what leaves the forward to bfloat16.
        self._statistics.add(result.sums)
        if result.log_probs is not None:
            written = inputs.setdefault("log_probs", result.log_probs)
            if self._use > 0:
                self._statistics.add(drift_sums(written, result.log_probs))
        return result.objective

    def _read_teacher(
        self, student: nn.Module, batch: MicroBatch, needs: Needs, inputs: dict[str, Any]
    ) -> Reading:
        """What the teacher reads, kept with the micro-batch where that will come again."""
        kept: tuple[Needs, Reading] | None = inputs.pop("teacher_reading", None)
        if kept is None or not needs.covered_by(kept[0]):
            layers = sorted({pair.teacher for pair in self.pairs}) if needs.states else []
            projected = self._update.teacher_transform
            kept = (
                needs,
                self._teacher.read(student, batch, layers, last=needs.last, transform=projected),
            )
        if self.student.training and self.args.keep_teacher_states and not self._last_use:
            inputs["teacher_reading"] = kept
        reading = kept[1]
        # The comparison drops each layer's rows when it is done with them.
        return reading._replace(states=dict(reading.states))

    def _diagnosing(self) -> bool:
        """Whether this step, or this evaluation, measures the paper's diagnostics."""
        every = self.args.diagnostics_steps
        return every > 0 and not (self.student.training and (self.state.global_step + 1) % every)

    # --- the step -------------------------------------------------------------------------------

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """TRL's step; at its last micro-batch the cost of all of them is logged."""
        with self._stopwatch("step"):
            loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            cost = cost_metrics(self._stopwatch.take(), self._step_tokens, self.accelerator.device)
            self._append_metrics("train", cost)
        return loss

    def _log_statistics(self, mode: str) -> None:
        reduce = partial(self.accelerator.reduce, reduction="sum")
        sums = self._statistics.take(cast(Callable[[Tensor], Tensor], reduce))
        if not sums:
            return
        where = "in evaluation after" if mode == "eval" else "before the update of"
        step = self.state.global_step + (mode == "train")
        self._statistics.check(sums, f"{where} step {step}")
        metrics = self._statistics.metrics(sums)
        if self.args.stages:
            metrics["stage"] = self._stage + 1
        self._append_metrics(mode, metrics)
        if mode == "train":
            self._look_at_first_batch(metrics)

    def _append_metrics(self, mode: str, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._metrics[mode][name].append(value)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient norm, checked on its way to the optimizer.

        Under float16, gradients that overflow are the loss scaler's to skip.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and not self.args.fp16 and not torch.isfinite(torch.as_tensor(norm)):
            # DeepSpeed has stepped by now.
            left = "" if self.is_deepspeed_enabled else " The student was left as it was."
            raise FloatingPointError(
                f"the gradient is not finite at step {self.state.global_step + 1} (norm {norm})."
                + left
            )
        return norm

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        with without_teacher_adapter(self.student):
            super()._save(output_dir, state_dict)
