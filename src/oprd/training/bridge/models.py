"""The two models of a fit: what must hold between them, and the rollouts they can both read."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from accelerate.logging import get_logger
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from oprd.evaluation.generate import Engine, TransformersEngine, render_prompt
from oprd.evaluation.models import load_model, resolve_model
from oprd.evaluation.sampling import Sampling
from oprd.training.bridge.provenance import model_identity
from oprd.training.bridge.rollouts import (
    RenderedPrompt,
    Rollout,
    check_rollouts,
    collect_rollouts,
    read_rollouts,
)
from oprd.training.callbacks import versions
from oprd.training.prompts import check_prompt_lengths, context_limits
from oprd.training.tokenizers import check_same_meaning

logger = get_logger(__name__)


@dataclass(frozen=True)
class FitModels:
    """A student and a teacher, loaded.

    Attributes:
        student: a causal language model.
        teacher: likewise, of any depth and width.
        tokenizer: the student's.
        teacher_tokenizer: the teacher's, where it is known.
    """

    student: Any
    teacher: Any
    tokenizer: PreTrainedTokenizerBase
    teacher_tokenizer: PreTrainedTokenizerBase | None

    @classmethod
    def load(cls, student: str, teacher: str, dtype: str = "auto") -> "FitModels":
        """Load both, by path or hub id.

        Raises:
            ValueError: the teacher reads the student's token ids as other tokens.
            OSError: a model cannot be found or read.
        """
        model, tokenizer = load_model(resolve_model(student), dtype=dtype)
        teacher_model, teacher_tokenizer = load_model(resolve_model(teacher), dtype=dtype)
        found = cls(model, teacher_model, tokenizer, teacher_tokenizer)
        check_same_meaning(tokenizer, teacher_tokenizer, found.vocabularies["teacher"])
        return found

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Which models they are."""
        return {
            "student": model_identity(self.student, self.tokenizer),
            "teacher": model_identity(self.teacher, self.teacher_tokenizer),
        }

    def identify(self) -> None:
        """Read the provenance now: later the weights may be in pieces on several devices."""
        _ = self.provenance

    @property
    def vocabularies(self) -> dict[str, int]:
        """Rows of each model's embedding."""
        models = {"student": self.student, "teacher": self.teacher}
        return {
            role: int(model.config.get_text_config().vocab_size) for role, model in models.items()
        }

    @property
    def contexts(self) -> dict[str, int]:
        """The longest sequence that each model reads, where it has a limit."""
        return context_limits(self.student, self.teacher)

    def write_rollouts(
        self,
        prompts: Dataset,
        sampling: Sampling,
        folder: Path,
        *,
        drop: bool = False,
        batch_size: int = 8,
        engine: Engine | None = None,
        template_options: Mapping[str, Any] | None = None,
        progress: bool = True,
    ) -> list[Rollout]:
        """One rollout of the student a prompt, in `rollouts.jsonl`, beside those that are there.

        Args:
            prompts: rows with a `prompt`.
            sampling: how responses are drawn, one a prompt.
            folder: where they are written.
            drop: leave out prompts that do not fit the contexts, instead of refusing them.
            batch_size: rollouts drawn at once.
            engine: what draws them; by default Transformers.
            template_options: of the chat template, see `render_prompt`.
            progress: whether to show a progress bar.

        Raises:
            ValueError: a prompt does not fit, or the folder holds rollouts of other settings.
        """

        def render(batch: Sequence[Any]) -> list[RenderedPrompt]:
            options = template_options or {}
            return [RenderedPrompt(*render_prompt(self.tokenizer, p, **options)) for p in batch]

        kept = check_prompt_lengths(
            prompts,
            lambda batch: [prompt.ids for prompt in render(batch)],
            self.contexts,
            sampling.max_new_tokens,
            drop=drop,
            name="fitting",
        )
        rendered = render(kept["prompt"])
        ids = json.dumps([prompt.ids for prompt in rendered])
        header = {
            "student": self.provenance["student"],
            "prompts": {"count": len(kept), "hash": hashlib.sha256(ids.encode()).hexdigest()[:16]},
            "sampling": sampling.facts(),
            "versions": versions(),
        }
        engine = engine or TransformersEngine(self.student, self.tokenizer, batch_size)
        found = collect_rollouts(engine, rendered, sampling, header, folder, progress=progress)
        # An embedding padded beyond the tokenizer can give ids that the teacher does not know.
        check_rollouts(found, self.vocabularies, self.contexts)
        return found

    def reuse_rollouts(self, path: Path) -> list[Rollout]:
        """The rollouts of another fit.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file holds no rollouts, or some that a model cannot read.
        """
        header, found = read_rollouts(path)
        check_rollouts(found, self.vocabularies, self.contexts)
        writer = header.get("student")
        weights = self.provenance["student"]["weights"]
        if not isinstance(writer, Mapping) or writer.get("weights") != weights:
            logger.warning(f"{path} was not written by this student: its rows are off-policy.")
        return found
