"""Rollouts: prompts that fit, completions that came back whole, positions counted at once."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from accelerate.logging import get_logger
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import PreTrainedModel
from trl.trainer.distillation_trainer import DistillationTrainer
from trl.trainer.utils import RepeatSampler

from oprd.prompts.lengths import check_prompt_lengths, context_limits, prompt_problem
from oprd.training.batch import BatchCounts, supervise
from oprd.training.config import OPRDConfig
from oprd.training.sampler import EpochRepeatSampler
from oprd.training.stopwatch import Stopwatch

logger = get_logger(__name__)


class RolloutTrainer(DistillationTrainer):
    """TRL's trainer up to the loss: what it writes is checked, counted and can be resumed.

    A subclass calls `_expect_rollouts` once its teacher is known.
    """

    args: OPRDConfig  # pyright: ignore[reportIncompatibleVariableOverride] # TRL's, narrowed

    @property
    def student(self) -> PreTrainedModel:
        """The model that trains, not wrapped for distribution."""
        return cast(PreTrainedModel, self.model)

    def _expect_rollouts(self, teacher: PreTrainedModel) -> None:
        """Check prompts for both models' contexts, and be ready to write for this teacher."""
        self._stopwatch = Stopwatch(self.accelerator.device)
        self._contexts = context_limits(self.student, teacher)
        self._teacher_vocab_size = int(teacher.config.get_text_config().vocab_size)
        self._empty_rows: list[int] = []
        self._step_tokens = 0.0
        self._check_prompts()

    def _check_prompts(self) -> None:
        self.train_dataset = self._checked(self.train_dataset, "training")
        if isinstance(self.eval_dataset, dict):
            self.eval_dataset = {n: self._checked(d, n) for n, d in self.eval_dataset.items()}
        else:
            self.eval_dataset = self._checked(self.eval_dataset, "evaluation")
        _check_prompt_count(self.train_dataset, self.args)

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

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler:
        """TRL's sampler, with each prompt repeated for its rollouts, and resumable."""
        sampler = super()._get_train_sampler(dataset)
        assert isinstance(sampler, RepeatSampler)
        return EpochRepeatSampler(
            data_source=sampler.data_source,
            rollouts_per_prompt=self.args.rollouts_per_prompt,
            batch_size=sampler.batch_size // self.args.rollouts_per_prompt,
            repeat_count=sampler.repeat_count * self.args.updates_per_rollout,
            shuffle=sampler.shuffle,
            seed=self.args.seed,
            epoch=lambda: int(self.state.epoch or 0),
        )

    @property
    def _use(self) -> int:
        """Which update on the same rollouts this is, from 0."""
        return self._step // self.args.gradient_accumulation_steps % self.args.updates_per_rollout

    @property
    def _last_use(self) -> bool:
        return self._use == self.args.updates_per_rollout - 1

    def _measures_drift(self) -> bool:
        """Whether this is the first or the last of several updates on the same rollouts."""
        several = self.args.updates_per_rollout > 1 and self.student.training
        return several and (self._use == 0 or self._last_use)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's, beginning with rollouts of its own."""
        self._step, self._buffered_inputs = 0, None
        return super().train(*args, **kwargs)

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """TRL's: rollouts, or the micro-batch of those at hand whose turn it is."""
        if self.student.training and self._use > 0 and self._buffered_inputs is not None:
            return self._buffered_inputs[self._step % self.args.gradient_accumulation_steps]
        return super()._prepare_inputs(generation_batch)

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
        rows = self.student.config.get_text_config().vocab_size
        _check_ids(output["completion_ids"], rows, self._teacher_vocab_size)
        output["completion_mask"][self._empty_rows] = 0
        local = supervise(output, self.args)
        counts = BatchCounts(*cast(Tensor, self.accelerator.reduce(local, "sum")).unbind())
        output["supervised_count"], output["response_count"] = counts.positions, counts.responses
        _, _, supervised, empty, tokens, sequences = torch.stack(counts).tolist()
        if mode == "train":
            self._step_tokens = tokens
        self._metrics[mode]["completions/empty_ratio"].append(empty / sequences)
        self._metrics[mode]["completions/unsupervised_ratio"].append(1 - supervised / sequences)
        if not supervised:
            logger.warning("No position of this batch is supervised: its loss is zero.")
        return output

    def _timed(self, phase: str) -> AbstractContextManager[None]:
        return self._stopwatch(phase) if self.student.training else nullcontext()


def first_broken_parameter(model: nn.Module) -> str | None:
    """The name of the first parameter with a value that is not finite."""
    return next((n for n, p in model.named_parameters() if not p.isfinite().all()), None)


def check_streaming(dataset: Any, args: OPRDConfig) -> None:
    """Refuse, with a ValueError, a stream where a setting needs a dataset with a length."""
    if not isinstance(dataset, IterableDataset):
        return
    needing = {"rollouts_per_prompt": 1, "updates_per_rollout": 1, "long_prompts": "error"}
    for name, default in needing.items():
        if getattr(args, name) != default:
            raise ValueError(
                f"{name}={getattr(args, name)!r} needs a dataset with a length, and this one is "
                "streamed."
            )


def _check_prompt_count(dataset: Any, args: OPRDConfig) -> None:
    """Refuse a dataset too small for one step."""
    if not isinstance(dataset, Dataset):
        return
    available = len(dataset) * args.rollouts_per_prompt
    if available < args.rollouts_per_step:
        raise ValueError(
            f"{len(dataset)} prompts give {available} rollouts, and a step needs "
            f"{args.rollouts_per_step}: lower per_device_train_batch_size or "
            "gradient_accumulation_steps, or add prompts."
        )


def _check_ids(ids: Tensor, student_rows: int, teacher_rows: int) -> None:
    """Refuse sampled ids beyond the teacher's embedding, which a student's padding allows.

    Args:
        ids: [B, K].
        student_rows: rows of the student's embedding.
        teacher_rows: rows of the teacher's.
    """
    if student_rows > teacher_rows and int(ids.max()) >= teacher_rows:
        raise ValueError(
            f"the student sampled token {int(ids.max())}, and the teacher's embedding has "
            f"{teacher_rows} rows: pass generation_kwargs={{'suppress_tokens': [...]}} with the "
            "ids beyond it."
        )
