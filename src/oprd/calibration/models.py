"""The two models of a fit: what must hold between them, and the rollouts they can both read."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from oprd.calibration.bridge.heads import Common
from oprd.calibration.identity import drawn_rollouts, model_identity, prompts_identity
from oprd.calibration.reading import Active
from oprd.calibration.rollouts import (
    RenderedPrompt,
    Rollout,
    check_rollouts,
    collect_rollouts,
    read_rollouts,
)
from oprd.calibration.selection import Taught, Teach
from oprd.log import get_logger
from oprd.models.adapters import check_no_virtual_tokens
from oprd.models.generate import Engine, TransformersEngine
from oprd.models.load import load_model, resolve_model
from oprd.models.own_tokens import OwnTokens
from oprd.models.prompt import render_prompt
from oprd.models.reading import context_length
from oprd.models.sampling import Sampling
from oprd.models.tokenizers import check_same_meaning
from oprd.prompts.lengths import check_prompt_lengths, context_limits
from oprd.runs.record import versions

logger = get_logger(__name__)


def first_prompts(prompts: Dataset, count: int) -> Dataset:
    """So many, or all that there are."""
    return prompts.select(range(min(count, len(prompts))))


@dataclass(frozen=True)
class FitModels:
    """A student and a teacher, loaded.

    Attributes:
        student: a causal language model.
        teacher: likewise, of any depth and width; the student itself where its base serves both.
        tokenizer: the student's.
        teacher_tokenizer: the teacher's, where it is known.
        own: how the teacher reads responses in tokens of its own; None for the student's.
        own_options: what its chat template is given there.
        teacher_weights: the fingerprint of the teacher's, where they are not here.
        teacher_active: entered while the teacher reads.
    """

    student: Any
    teacher: Any
    tokenizer: PreTrainedTokenizerBase
    teacher_tokenizer: PreTrainedTokenizerBase | None
    own: OwnTokens | None = None
    own_options: Mapping[str, Any] = field(default_factory=dict)
    teacher_weights: str | None = None
    teacher_active: Active = nullcontext

    @classmethod
    def load(
        cls,
        student: str,
        teacher: str,
        dtype: str = "auto",
        *,
        teacher_base: str | None = None,
        own_tokens: bool = False,
        special_tokens: Mapping[str, str | None] | None = None,
        own_options: Mapping[str, Any] | None = None,
    ) -> "FitModels":
        """Load both, by path or hub id.

        Args:
            student: of a model or of an adapter.
            teacher: likewise.
            dtype: `"auto"` is the checkpoints' own.
            teacher_base: what a teacher that is an adapter is loaded on, instead of what it names.
            own_tokens: whether the teacher reads responses in tokens of its own.
            special_tokens: see `SpecialTokens.of`.
            own_options: see the class.

        Raises:
            ValueError: the teacher reads the student's token ids as other tokens, or has none of
                its own that are read.
            OSError: a model cannot be found or read.
        """
        model, tokenizer = load_model(resolve_model(student), dtype=dtype)
        teacher_model, teacher_tokenizer = load_model(
            resolve_model(teacher), base_model=teacher_base, dtype=dtype
        )
        for role, loaded in (("student", model), ("teacher", teacher_model)):
            check_no_virtual_tokens(getattr(loaded, "peft_config", {}).values(), role)
        both = (model, teacher_model), (tokenizer, teacher_tokenizer)
        if own_tokens:
            own = OwnTokens.of(*both, special_tokens)
            return cls(*both[0], *both[1], own, own_options or {})
        found = cls(model, teacher_model, tokenizer, teacher_tokenizer)
        check_same_meaning(tokenizer, teacher_tokenizer, found.vocabularies["teacher"])
        return found

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Which models they are."""
        teacher = model_identity(self.teacher, self.teacher_tokenizer)
        return {
            "student": model_identity(self.student, self.tokenizer),
            "teacher": {**teacher, "weights": teacher["weights"] or self.teacher_weights},
        }

    def identify(self) -> None:
        """Read the provenance now: later the weights may be in pieces on several devices."""
        _ = self.provenance

    @property
    def vocabularies(self) -> dict[str, int]:
        """Rows of each model's embedding, of those that read the student's tokens."""
        models = {"student": self.student, "teacher": self.teacher}
        if self.own is not None:
            models = {"student": self.student}
        return {
            role: int(model.config.get_text_config().vocab_size) for role, model in models.items()
        }

    @property
    def contexts(self) -> dict[str, int]:
        """The longest sequence that each model reads of the student's tokens, where limited."""
        limits = context_limits(self.student, self.teacher)
        return limits if self.own is None else {k: v for k, v in limits.items() if k == "student"}

    @cached_property
    def common(self) -> Common:
        """The tokens that two vocabularies spell alike; None of a teacher of the student's."""
        return None if self.own is None else self.own.common()

    @property
    def teach(self) -> Teach:
        """Reads a rollout as a teacher with tokens of its own does; None where it has none.

        It raises a ValueError that names the prompt where that does not fit the teacher's context,
        or was written down without its messages.
        """
        return None if self.own is None else self._teach

    def _teach(self, rollout: Rollout) -> Taught:
        assert self.own is not None
        asked = rollout.text if rollout.messages is None else rollout.messages
        # A rendered prompt, as it was kept before there was another way to read it.
        rendered = rollout.messages is None and self.tokenizer.chat_template is not None
        special = (str(token) for token in self.tokenizer.all_special_tokens)
        if rendered and any(token in rollout.text for token in special):
            raise ValueError(
                f"{rollout.name} is kept as the student's chat template renders it, which is not "
                "the teacher's: let its rollout be written again, from --prompts."
            )
        _, ids = render_prompt(self.own.tokenizer, asked, **self.own_options)
        response = self.own.read(rollout.completion_ids)
        limit = context_length(self.teacher.config)
        if limit is not None and len(ids) + len(response.ids) > limit:
            raise ValueError(
                f"{rollout.name} has {len(ids)} tokens for the teacher and its response "
                f"{len(response.ids)} (for the student {len(rollout.completion_ids)}), and the "
                f"teacher reads {limit} at most: use shorter rollouts."
            )
        return Taught(ids, response)

    def render(
        self,
        prompts: Dataset,
        max_completion_length: int | None,
        template_options: Mapping[str, Any],
        *,
        drop: bool = False,
    ) -> list[RenderedPrompt]:
        """Prompts as the student reads them.

        Args:
            prompts: rows with a `prompt`.
            max_completion_length: the limit of a response.
            template_options: of the chat template, see `render_prompt`.
            drop: leave out prompts that do not fit the contexts, instead of refusing them.

        Raises:
            ValueError: a prompt does not fit.
        """

        def render(batch: Sequence[Any]) -> list[RenderedPrompt]:
            return [
                RenderedPrompt(
                    *render_prompt(self.tokenizer, prompt, **template_options),
                    None if isinstance(prompt, str) else [dict(message) for message in prompt],
                )
                for prompt in batch
            ]

        kept = check_prompt_lengths(
            prompts,
            lambda batch: [prompt.ids for prompt in render(batch)],
            self.contexts,
            max_completion_length,
            drop=drop,
            name="fitting",
        )
        return render(kept["prompt"])

    def identity_of(
        self,
        prompts: Dataset,
        max_completion_length: int | None,
        template_options: Mapping[str, Any],
    ) -> dict[str, Any]:
        """`prompts_identity` of prompts as `render` gives them."""
        rendered = self.render(prompts, max_completion_length, template_options)
        return prompts_identity([prompt.ids for prompt in rendered])

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
    ) -> tuple[list[Rollout], dict[str, Any]]:
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

        Returns:
            The rollouts, and how they were drawn, see `drawn_rollouts`.

        Raises:
            ValueError: a prompt does not fit, or the folder holds rollouts of other settings.
        """
        options = dict(template_options or {})
        rendered = self.render(prompts, sampling.max_new_tokens, options, drop=drop)
        header = {
            "student": self.provenance["student"],
            "prompts": prompts_identity([prompt.ids for prompt in rendered]),
            "sampling": sampling.facts(),
            "chat_template_kwargs": options,
            "versions": versions(),
        }
        engine = engine or TransformersEngine(self.student, self.tokenizer, batch_size)
        found = collect_rollouts(engine, rendered, sampling, header, folder, progress=progress)
        # An embedding padded beyond the tokenizer can give ids that the teacher does not know.
        check_rollouts(found, self.vocabularies, self.contexts)
        return found, drawn_rollouts(sampling.facts(), sampling.max_new_tokens, options)

    def reuse_rollouts(self, path: Path) -> tuple[list[Rollout], dict[str, Any] | None]:
        """The rollouts of another fit, and how they were drawn, None where they do not say.

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
        sampling = header.get("sampling")
        if not isinstance(sampling, Mapping):
            return found, None
        limit, options = sampling.get("max_new_tokens"), header.get("chat_template_kwargs")
        return found, drawn_rollouts(sampling, limit, options)
