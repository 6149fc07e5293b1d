"""OPRD on TRL: its distillation trainer, with states in the place of logits.

TRL writes the rollouts, splits them into micro-batches and steps the optimizer. Three of its
methods are the seam: `_generate_and_score_completions`, where positions are selected and counted
once for a generation batch; `_compute_loss`, where the teacher reads and the student follows; and
`compute_loss`, which divides once by the global count.

Letters: B sequences, K response tokens, T all tokens, L layers.
"""

import textwrap
from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.logging import get_logger
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    ProgressCallback,
    TrainerCallback,
)
from trl.models.utils import prepare_deepspeed, prepare_fsdp
from trl.trainer.distillation_trainer import DistillationTrainer
from trl.trainer.utils import RepeatSampler, get_config_model_id

from oprd.core.capture import capture_states
from oprd.core.positions import PositionSpec, select_positions
from oprd.core.reduction import Reduction, supervised_count
from oprd.core.representation import LayerComparison
from oprd.training.callbacks import RunRecorder, TrainingProgress
from oprd.training.config import OPRDConfig
from oprd.training.forward import base_forward, context_length, predicting_rows
from oprd.training.matching import gradient_reaches_all, pair_models
from oprd.training.metrics import StepStatistics, Stopwatch, peak_memory_gib
from oprd.training.prompts import check_prompt_lengths, prompt_problem
from oprd.training.sampler import EpochRepeatSampler
from oprd.training.teacher import (
    TeacherSource,
    add_teacher_adapter,
    load_teacher,
    shares_base,
    teacher_adapter_active,
    without_teacher_adapter,
)
from oprd.training.tokenizers import check_tokenizers

logger = get_logger(__name__)

# Keys of a TRL batch that are inputs of a multimodal base model.
MULTIMODAL_KEYS = (
    "pixel_values",
    "image_grid_thw",
    "pixel_attention_mask",
    "spatial_shapes",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
)


class OPRDTrainer(DistillationTrainer):
    """Trains a student by on-policy representation distillation (Eq. 6).

    The student writes rollouts, the frozen teacher reads them, and the student's hidden states are
    pulled to the teacher's. Neither model's LM head is called in an update.

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
        if args is None:
            name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = OPRDConfig(f"{Path(name).name or 'student'}-OPRD")
        if not isinstance(args, OPRDConfig):
            raise TypeError(f"args must be an OPRDConfig, got {type(args).__name__}.")
        teacher_model = teacher_model or args.teacher_model_name_or_path
        if teacher_model is None:
            raise ValueError("a teacher is needed: pass teacher_model, or set its path in args.")
        _check_streaming(train_dataset, args)
        source = None
        if isinstance(teacher_model, str):
            source = TeacherSource.resolve(teacher_model, args)
        else:
            _check_path_options(args)
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
        self.shares_base = source is not None and shares_base(
            self.student, source, args.teacher_model_revision
        )
        teacher = self._load_teacher(source, teacher_model)
        if not self.shares_base or teacher_processing_class is not None:
            place = source.model if source is not None else teacher.config.name_or_path or ""
            check_tokenizers(self._tokenizer, teacher_processing_class, teacher, place, args)
        self.pairs = pair_models(self.student, teacher, args.layer_spec)
        self._check_contexts(teacher)
        self._teacher_vocab_size = int(teacher.config.get_text_config().vocab_size)
        self._prepare_teacher(source, teacher)
        if self.args.ddp_find_unused_parameters is None:
            # The head, and blocks above the last supervised layer, get no gradient.
            self.args.ddp_find_unused_parameters = not gradient_reaches_all(
                self.student, self.pairs[-1].student
            )
        self._statistics = StepStatistics(self.pairs)
        self._stopwatch = Stopwatch(self.accelerator.device)
        self._empty_rows: list[int] = []
        self._step_tokens = 0
        self._set_callbacks(source, teacher_model)

    @property
    def student(self) -> PreTrainedModel:
        """The model that trains, not wrapped for distribution."""
        return cast(PreTrainedModel, self.model)

    # --- construction ---------------------------------------------------------------------------

    def _load_teacher(
        self, source: TeacherSource | None, teacher_model: str | PreTrainedModel
    ) -> PreTrainedModel:
        """The teacher, or the student where its base serves both."""
        if self.shares_base:
            return self.student
        if source is not None:
            return load_teacher(source, self.args)
        teacher = cast(PreTrainedModel, teacher_model)
        students = {id(parameter) for parameter in self.student.parameters()}
        if any(id(parameter) in students for parameter in teacher.parameters()):
            raise ValueError(
                "teacher_model shares weights with the student and would train with it: "
                "pass a copy, or the path of an adapter."
            )
        return teacher.eval()

    def _check_contexts(self, teacher: PreTrainedModel) -> None:
        contexts = {
            "student": context_length(self.student.config),
            "teacher": context_length(teacher.config),
        }
        self._contexts = {name: limit for name, limit in contexts.items() if limit is not None}
        self.train_dataset = self._checked(self.train_dataset, "training")
        if isinstance(self.eval_dataset, dict):
            self.eval_dataset = {n: self._checked(d, n) for n, d in self.eval_dataset.items()}
        else:
            self.eval_dataset = self._checked(self.eval_dataset, "evaluation")
        if not isinstance(self.train_dataset, Dataset):
            return
        available = len(self.train_dataset) * self.args.rollouts_per_prompt
        if available < self.args.rollouts_per_step:
            raise ValueError(
                f"{len(self.train_dataset)} prompts give {available} rollouts, and a step needs "
                f"{self.args.rollouts_per_step}: lower per_device_train_batch_size or "
                "gradient_accumulation_steps, or add prompts."
            )

    def _checked(self, dataset: Any, name: str) -> Any:
        """The dataset with its prompts' lengths checked, where it has a length."""
        if not isinstance(dataset, Dataset):
            return dataset
        return check_prompt_lengths(
            dataset,
            lambda prompts: self._tokenize_prompts(prompts)[0],
            self._contexts,
            self.max_completion_length,
            drop=self.args.long_prompts == "drop",
            name=name,
        )

    def _prepare_teacher(self, source: TeacherSource | None, teacher: PreTrainedModel) -> None:
        if self.shares_base:
            assert source is not None
            add_teacher_adapter(self.student, source, self.args.teacher_model_revision)
            self.teacher_model = None
        elif self.is_deepspeed_enabled:
            self.teacher_model = prepare_deepspeed(teacher, self.accelerator)
        elif self.is_fsdp_enabled:
            self.teacher_model = prepare_fsdp(teacher, self.accelerator)
        else:
            self.teacher_model = self.accelerator.prepare_model(teacher, evaluation_mode=True)

    def _set_callbacks(
        self, source: TeacherSource | None, teacher_model: str | PreTrainedModel
    ) -> None:
        if not self.args.disable_tqdm:
            self.remove_callback(ProgressCallback)
            self.add_callback(TrainingProgress)
        teacher = teacher_model if source is not None else teacher_model.config.name_or_path  # pyright: ignore[reportAttributeAccessIssue]
        facts = {
            "student": self.student.config.name_or_path,
            "teacher": teacher,
            "teacher_base": source.model if source is not None and source.adapter else None,
            "one_base_serves_both": self.shares_base,
            "layer_pairs": [list(pair) for pair in self.pairs],
        }
        self.add_callback(RunRecorder(facts))

    # --- rollouts -------------------------------------------------------------------------------

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler:
        """TRL's sampler, with each prompt repeated for its rollouts, and resumable."""
        sampler = super()._get_train_sampler(dataset)
        assert isinstance(sampler, RepeatSampler)
        return EpochRepeatSampler(
            data_source=sampler.data_source,
            rollouts_per_prompt=self.args.rollouts_per_prompt,
            batch_size=sampler.batch_size // self.args.rollouts_per_prompt,
            repeat_count=sampler.repeat_count,
            shuffle=sampler.shuffle,
            seed=self.args.seed,
            epoch=lambda: int(self.state.epoch or 0),
        )

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any):
        try:
            completions = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        except RuntimeError as error:
            if broken := first_broken_parameter(self.student):
                raise FloatingPointError(
                    f"the student's {broken} is not finite before step "
                    f"{self.state.global_step + 1}."
                ) from error
            raise
        if len(completions) != len(prompt_ids):
            raise RuntimeError(
                f"{len(prompt_ids)} rollouts were asked for and {len(completions)} came back: "
                "see the rollout engine's log."
            )
        if not self.tools:
            # TRL looks at the last token of every completion. One that is empty gets an EOS for it
            # to look at, which is masked out again when positions are selected.
            self._empty_rows = [row for row, ids in enumerate(completions) if not ids]
            for row in self._empty_rows:
                completions[row] = [self._tokenizer.eos_token_id]
        return completions

    def _tokenize_prompts(self, prompts: list) -> tuple[list[list[int]], Any, Any]:
        """TRL's, for a batch about to be written; streamed prompts are checked here."""
        prompt_ids, images, fields = super()._tokenize_prompts(prompts)
        if isinstance(self.train_dataset, IterableDataset):
            for prompt, ids in zip(prompts, prompt_ids, strict=True):
                if problem := prompt_problem(ids, self._contexts, self.max_completion_length):
                    raise ValueError(f"the prompt {str(prompt)[:60]!r} {problem}")
        return prompt_ids, images, fields

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Write rollouts, then select and count the supervised positions of the whole batch."""
        mode = "train" if self.student.training else "eval"
        with self._timed("rollout"):
            output = super()._generate_and_score_completions(inputs)
        self._check_ids(output["completion_ids"])
        mask = output["completion_mask"]
        mask[self._empty_rows] = 0
        response = mask * output["tool_mask"] if "tool_mask" in output else mask
        positions = self._select_positions(response)
        output["positions"] = positions
        reduction = cast(Reduction, self.args.reduction)
        local = torch.stack(
            [
                supervised_count(positions, reduction),
                supervised_count(positions, "sequence"),
                (~mask.bool().any(dim=1)).sum().float(),
                output["prompt_mask"].sum().float() + mask.sum().float(),
                torch.tensor(float(len(mask)), device=mask.device),
            ]
        )
        total = cast(Tensor, self.accelerator.reduce(local, "sum"))
        output["supervised_count"] = total[0]
        _, supervised, empty, tokens, sequences = total.tolist()
        self._step_tokens = tokens
        self._metrics[mode]["completions/empty_ratio"].append(empty / sequences)
        self._metrics[mode]["completions/unsupervised_ratio"].append(1 - supervised / sequences)
        if not supervised:
            logger.warning("No position of this batch is supervised: its loss is zero.")
        return output

    def _select_positions(self, response: Tensor) -> Tensor:
        spec = cast(PositionSpec, self.args.positions)
        return select_positions(response, spec, self.args.position_k)

    def _check_ids(self, ids: Tensor) -> None:
        """Refuse ids beyond the teacher's embedding, which a longer student's padding allows."""
        rows = self._teacher_vocab_size
        if self.student.config.get_text_config().vocab_size > rows and int(ids.max()) >= rows:
            raise ValueError(
                f"the student sampled token {int(ids.max())}, and the teacher's embedding has "
                f"{rows} rows: pass generation_kwargs={{'suppress_tokens': [...]}} with the ids "
                "beyond it."
            )

    def _timed(self, phase: str) -> AbstractContextManager[None]:
        return self._stopwatch(phase) if self.student.training else nullcontext()

    # --- the loss -------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ):
        """The micro-batch's share of the loss: its sum over the count of the whole batch.

        Gradients are averaged over processes by DDP and FSDP, hence the factor.
        """
        student = self.accelerator.unwrap_model(model)
        total: Tensor = self._forward_redirection(
            model, student, self._compute_loss, student, inputs, num_items_in_batch
        )
        if not self.student.training:
            self._log_statistics("eval")
        elif self.accelerator.sync_gradients:
            # Before backward, because DeepSpeed steps the optimizer inside it.
            self._log_statistics("train")
        count = inputs["supervised_count"].clamp(min=1) / self.accelerator.num_processes
        loss = self.args.representation_weight * total / count
        return (loss, None) if return_outputs else loss

    def _compute_loss(  # pyright: ignore[reportIncompatibleMethodOverride] # for our compute_loss
        self,
        unwrapped_student: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None,
    ) -> Tensor:
        """The micro-batch's total: one teacher forward, one student forward, states compared."""
        input_ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        attention_mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        extra = {key: inputs[key] for key in MULTIMODAL_KEYS if key in inputs}
        rows = predicting_rows(inputs["positions"], inputs["prompt_ids"].shape[1])
        with torch.no_grad(), self._timed("teacher"), self.accelerator.autocast():
            teacher_states = self._teacher_states(
                unwrapped_student, input_ids, attention_mask, rows, extra
            )
        comparison = LayerComparison(
            teacher_states,
            self.pairs,
            inputs["positions"],
            normalize=self.args.normalize,
            reduction=cast(Reduction, self.args.reduction),
        )
        layers = [pair.student for pair in self.pairs]
        with (
            capture_states(unwrapped_student, layers, rows, comparison),
            # Accelerate's own autocast is on the model's forward, which is not what runs here.
            self.accelerator.autocast(),
        ):
            base_forward(unwrapped_student, input_ids, attention_mask, **extra)
        result = comparison.result()
        # Here, because FSDP casts what leaves the forward to bfloat16.
        self._statistics.add(result, inputs["positions"].sum())
        return result.loss.total

    def _teacher_states(
        self,
        student: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        rows: Tensor,
        extra: dict[str, Any],
    ) -> MutableMapping[int, Tensor]:
        """The teacher's rows at the supervised positions, by teacher layer."""
        layers = sorted({pair.teacher for pair in self.pairs})
        if self.teacher_model is None:
            with teacher_adapter_active(student), capture_states(student, layers, rows) as states:
                base_forward(student, input_ids, attention_mask, **extra)
            return states
        wrapper = cast(nn.Module, self.teacher_model)
        teacher = self.accelerator.unwrap_model(wrapper)
        wrapper.eval()
        with capture_states(teacher, layers, rows) as states:
            self._forward_redirection(
                wrapper,
                teacher,
                base_forward,
                teacher,
                input_ids,
                attention_mask,
                **extra,
            )
        return states

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
            self._log_cost()
        return loss

    def _log_statistics(self, mode: str) -> None:
        sums = self._statistics.take()
        if sums is None:
            return
        total = cast(Tensor, self.accelerator.reduce(sums, "sum")).cpu()
        if broken := self._statistics.broken(total):
            where = "in evaluation after" if mode == "eval" else "before the update of"
            step = self.state.global_step + (mode == "train")
            raise FloatingPointError(
                f"states that are not finite {where} step {step}: {', '.join(broken)}. "
                "The student was left as it was."
            )
        for name, value in self._statistics.metrics(total).items():
            self._metrics[mode][name].append(value)

    def _log_cost(self) -> None:
        seconds = self._stopwatch.take()
        step, rollout = seconds.get("step", 0.0), seconds.get("rollout", 0.0)
        teacher = seconds.get("teacher", 0.0)
        metrics = self._metrics["train"]
        metrics["seconds/rollout"].append(rollout)
        metrics["seconds/teacher"].append(teacher)
        metrics["seconds/student"].append(step - rollout - teacher)
        metrics["tokens_per_second"].append(self._step_tokens / step)
        metrics["peak_memory_gib"].append(peak_memory_gib(self.accelerator.device))

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


def first_broken_parameter(model: nn.Module) -> str | None:
    """The name of the first parameter with a value that is not finite."""
    return next((n for n, p in model.named_parameters() if not p.isfinite().all()), None)


def _check_streaming(dataset: Dataset | IterableDataset | None, args: OPRDConfig) -> None:
    """What needs a dataset with a length."""
    if not isinstance(dataset, IterableDataset):
        return
    for name, default in (("rollouts_per_prompt", 1), ("long_prompts", "error")):
        if getattr(args, name) != default:
            raise ValueError(
                f"{name}={getattr(args, name)!r} needs a dataset with a length, and this one is "
                "streamed."
            )


def _check_path_options(args: OPRDConfig) -> None:
    """What describes a teacher's path says nothing of a model that is there already."""
    for name in (
        "teacher_model_init_kwargs",
        "teacher_model_revision",
        "teacher_base_model_name_or_path",
    ):
        if getattr(args, name) is not None:
            raise ValueError(
                f"{name} is for a teacher given by its path, and this one is a model: leave it out."
            )
