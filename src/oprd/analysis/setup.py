"""What a measurement of cost is made on: two models and a batch of rollouts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from oprd.analysis.shapes import SHAPES, random_model
from oprd.models.load import load_weights, resolve_model
from oprd.models.reading import context_length

SIZES = (
    "layers_count",
    "vocab_size",
    "batch_size",
    "prompt_length",
    "response_length",
    "teacher_prompt_length",
    "window",
)
DTYPES = ("float32", "bfloat16", "float16")


def _device() -> str:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator.type if accelerator is not None else "cpu"


@dataclass(frozen=True)
class Setup:
    """Models and rollouts of one measurement; plain values, which go into files and processes.

    Attributes:
        shape: a named architecture with random weights, for student and teacher alike.
        teacher_shape: the teacher's, where it is another.
        student: in place of a shape, the student's path or hub id, of a model or of an adapter,
            which alone trains then.
        teacher: likewise.
        layers_count: blocks of a shape, if not its own number; of both.
        vocab_size: vocabulary of a shape, if not its own; of both.
        batch_size: rollouts of an update.
        prompt_length: tokens of each prompt.
        response_length: tokens of each response.
        teacher_prompt_length: tokens of the teacher's own prompts, for objectives with such.
        window: for objectives on a window, the last so many response tokens; by default a quarter.
        layers: the layers of the objective that supervises a selection of them.
        gradient_checkpointing: of the student.
        dtype: of both models.
        device: where they are; an accelerator if there is one.

    Raises:
        ValueError: a value is illegal; the message names it.
    """

    shape: str | None = "smollm2-135m"
    teacher_shape: str | None = None
    student: str | None = None
    teacher: str | None = None
    layers_count: int | None = None
    vocab_size: int | None = None
    batch_size: int = 2
    prompt_length: int = 64
    response_length: int = 448
    teacher_prompt_length: int = 1000
    window: int | None = None
    layers: str = "last"
    gradient_checkpointing: bool = False
    dtype: str = "float32"
    device: str = field(default_factory=_device)

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        models = (self.student, self.teacher)
        if models.count(None) != (2 if self.shape else 0):
            raise ValueError("give a shape, or both a student and a teacher.")
        for name in ("shape", "teacher_shape"):
            value = getattr(self, name)
            if value is not None and value not in SHAPES:
                raise ValueError(f"{name} must be one of {', '.join(SHAPES)}, got {value!r}.")
        if self.teacher_shape is not None and self.shape is None:
            raise ValueError("teacher_shape is beside a shape: a teacher has its own.")
        if self.shape is None and (self.layers_count or self.vocab_size):
            raise ValueError("layers_count and vocab_size change a shape: a student has its own.")
        for name in SIZES:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if self.window_length > self.response_length:
            raise ValueError(
                f"window must be within the response's {self.response_length} tokens, "
                f"got {self.window}."
            )
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}.")

    @property
    def window_length(self) -> int:
        """Supervised tokens of an objective on a window."""
        return self.window or max(1, self.response_length // 4)

    def check_contexts(self, configs: Mapping[str, Any]) -> None:
        """Refuse, with a ValueError, rollouts that a model cannot read.

        Args:
            configs: of both models, by their part.
        """
        length = self.prompt_length + self.response_length
        for what, config in configs.items():
            limit = context_length(config)
            if limit is not None and length > limit:
                raise ValueError(
                    f"a prompt of {self.prompt_length} and a response of {self.response_length} "
                    f"tokens do not fit into the {what}'s context of {limit}: lower prompt_length "
                    "or response_length, in a sweep its values."
                )


class Models:
    """The student and the teacher of a setup.

    Attributes:
        student: in training mode.
        teacher: frozen, in evaluation mode.
    """

    def __init__(self, setup: Setup) -> None:
        self.student = _model(setup, setup.student, setup.shape, seed=0).train()
        if hasattr(self.student, "peft_config"):
            # As loaded, an adapter is frozen.
            cast(Any, self.student).set_adapter(self.student.active_adapter)
        shape = setup.teacher_shape or setup.shape
        self.teacher = _model(setup, setup.teacher, shape, seed=1).eval().requires_grad_(False)
        if setup.gradient_checkpointing:
            self.student.gradient_checkpointing_enable({"use_reentrant": False})


class Scene:
    """What all objectives of a setup have in common: its models and one batch of rollouts.

    Letters: B sequences, K response tokens, T all tokens.

    Attributes:
        setup: where the rest comes from.
        student: as in `Models`.
        teacher: as in `Models`.
        input_ids: [B, T] random tokens.
        attention_mask: [B, T] of ones: no rollout is shorter than another.
        teacher_ids: [B, T'] the same responses after prompts of the teacher's own.
        response_ids: [B, K].
        predicting: the columns whose states predict them.
    """

    def __init__(self, setup: Setup, models: Models) -> None:
        self.setup = setup
        self.student, self.teacher = models.student, models.teacher
        setup.check_contexts({"student": self.student.config, "teacher": self.teacher.config})
        length = setup.prompt_length + setup.response_length
        vocabulary = [_vocabulary(model) for model in (self.student, self.teacher)]
        generator = torch.Generator().manual_seed(0)
        shape = (setup.batch_size, length)
        ids = torch.randint(min(vocabulary), shape, generator=generator)
        self.input_ids = ids.to(self.student.device)
        self.attention_mask = torch.ones_like(self.input_ids)
        self.response_ids = self.input_ids[:, setup.prompt_length :]
        own = (setup.batch_size, setup.teacher_prompt_length)
        prompts = torch.randint(min(vocabulary), own, generator=generator)
        self.teacher_ids = torch.cat([prompts.to(self.input_ids.device), self.response_ids], dim=1)
        self.predicting = slice(setup.prompt_length - 1, -1)


def _model(setup: Setup, path: str | None, shape: str | None, seed: int) -> PreTrainedModel:
    if path is None:
        assert shape is not None
        sizes = {"layers_count": setup.layers_count, "vocab_size": setup.vocab_size}
        model = random_model(shape, **sizes, dtype=getattr(torch, setup.dtype), seed=seed)
    else:
        model = load_weights(resolve_model(path, contents=False), None, None, setup.dtype)
    return cast(Any, model).to(setup.device)


def _vocabulary(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().vocab_size)
