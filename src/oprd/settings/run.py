"""Settings of a run: TRL's distillation settings, and what representation distillation adds."""

import copy
from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast, get_args

import torch

from oprd.core.layers import PAIRINGS, check_pairing, select_layers
from oprd.core.positions import PositionSpec
from oprd.extras import check_installed
from oprd.models.trial import check_kinds, try_generation, try_parts
from oprd.runs.kept import KEPT
from oprd.runs.limits import GENERATION, MOST, check_limits, checked_numbers
from oprd.runs.unused import check_accelerator, check_unused
from oprd.secrets import picklable, without_secrets
from oprd.settings.bridge import FIT, settle_bridge
from oprd.settings.given import Given, no_defaults
from oprd.settings.mixture import MixtureConfig, check_mixture
from oprd.settings.objective import ObjectiveConfig
from oprd.settings.rollouts import check_rollouts
from oprd.settings.tasks import TaskEvaluationConfig
from oprd.settings.teachers import TeacherConfig
from oprd.settings.team import ANY_DEPTH
from oprd.values import (
    check_choice,
    check_positive,
    parse_layers,
    parse_mapping,
    parse_names,
)

# The paper's.
PAPERS_RATE = 1e-5
AUTO = "auto"
LongPrompts = Literal["error", "drop"]


@dataclass
class OPRDConfig(ObjectiveConfig, TaskEvaluationConfig, TeacherConfig, MixtureConfig):
    """Settings of `OPRDTrainer`: TRL's, those of objective, tasks, teacher, rollouts, and these.

    The learning rate, its warm-up and its schedule default to the paper's. Without an accelerator,
    training is in float32 (TRL's default is bfloat16, which most CPUs emulate).

    Args:
        layers: which student layers are supervised: "all", "last", "last:N", "even", "odd",
            "every:N", or layer numbers from 1, on the command line as "1,2,3". All by default, and
            the last where states meet through a bridge of both LM heads alone.
        layer_pairing: which teacher layers they meet: a name in `oprd.core.layers.PAIRINGS`
            ("similarity" is measured before the first step), or pairs such as "1:1,2:3".
        positions: which response tokens are supervised: "all", "last", "first_k" or "last_k", or
            "divergence": all, at each layer weighed within a response by how far the states are
            apart there.
        position_k: how many, for "first_k" and "last_k".
        sample_steps: at the first step, every so many and the last one, keep some rollouts in the
            run folder, token by token with the cosine of both models' states; 0 keeps none.
        long_prompts: "error" refuses a dataset with a prompt that leaves no room for the response
            in the student's or the teacher's context, "drop" leaves such prompts out.
        teacher_base_model_name_or_path: the base model of a teacher that is an adapter, where it is
            not the one that the adapter names.
        overwrite: start anew in a folder that holds checkpoints. What the earlier run's record and
            manifests name is deleted, and nothing else.
        allow_changed: of what a resumed run keeps (`oprd.runs.kept.KEPT`), what may be another
            than it began with: names, comma-separated or as a list.

    Raises:
        ValueError: a value is illegal; the message names it.
    """

    learning_rate: float | str = field(
        default=PAPERS_RATE,
        metadata={"help": "The highest learning rate, or auto to find it before the first step."},
    )
    lr_scheduler_type: str = field(
        default="cosine", metadata={"help": "The learning rate's schedule (the paper's)."}
    )
    warmup_steps: float = field(
        default=0.03,
        metadata={"help": "Warm-up in steps, or below 1 as a share of all steps (the paper's)."},
    )
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={
            "help": "Leave losses that are not finite out of the log. A run stops there anyhow, "
            "and to look at each micro-batch waits for the device."
        },
    )
    layers: str = field(
        # Settled by the bridge.
        default=cast(str, None),
        metadata={"help": 'Supervised layers: all, last, last:N, even, odd, every:N or "1,2,3".'},
    )
    layer_pairing: str = field(
        default="proportional",
        metadata={"help": f'The teacher layers they meet: {", ".join(PAIRINGS)} or "1:1,2:3".'},
    )
    positions: str = field(
        default="last_k",
        metadata={"help": "Supervised response tokens: all, last, first_k, last_k or divergence."},
    )
    position_k: int = field(
        default=2000, metadata={"help": 'How many positions "first_k" and "last_k" select.'}
    )
    sample_steps: int = field(
        default=50,
        metadata={
            "help": "Keep some rollouts at the first step, every so many and the last one; 0: none."
        },
    )
    long_prompts: str = field(
        default="error",
        metadata={
            "help": 'What to do with prompts that do not fit the context: "error" or "drop".'
        },
    )
    teacher_base_model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Base model of a teacher adapter, if not the one the adapter names."},
    )
    overwrite: bool = field(
        default=False,
        metadata={"help": "Start anew in the place of the run that output_dir holds."},
    )
    allow_changed: str | None = field(
        default=None,
        metadata={
            "help": "Let a resumed run go on although these differ from what it began with: "
            f"{', '.join(KEPT)}."
        },
    )

    def __post_init__(self) -> None:
        """Check every value before anything is loaded or allocated."""
        at_first = no_defaults(self)
        settle_bridge(self)
        # An "even" of one layer is refused when the model is known: here the form is checked.
        select_layers(self.layer_spec, ANY_DEPTH)
        check_pairing(self.layer_pairing, self.layer_spec)
        check_choice("positions", self.positions, get_args(PositionSpec))
        check_choice("long_prompts", self.long_prompts, get_args(LongPrompts))
        for name in self.allowed_changes:
            check_choice("allow_changed", name, KEPT)
        self._settle_rate()
        _check_steps(self.max_steps, self.num_train_epochs)
        vars(self).update(checked_numbers(vars(self)))
        check_unused(vars(self))
        check_kinds(vars(self))
        accelerated = torch.accelerator.is_available() and not self.use_cpu
        if self.fp16 and not accelerated:
            raise ValueError(
                "fp16=True has no effect without an accelerator, where training is in float32: "
                "leave it out, or set bf16."
            )
        if self.bf16 is None and not self.fp16:
            self.bf16 = accelerated
        if not accelerated:
            # Pinned memory is for copies to a device: without one torch only warns.
            self.dataloader_pin_memory = False
            # Transformers wants to be told, in words about a GPU.
            self.use_cpu = self.use_cpu or bool(self.bf16)
        self.report_to = parse_names(self.report_to or "none")
        if self.deepspeed:
            check_installed("deepspeed", "deepspeed", "deepspeed")
        super().__post_init__()
        check_accelerator(vars(self.accelerator_config))
        for settings in self.objectives():
            settings._check_rows()
        given = self.generation_kwargs
        given = parse_mapping("generation_kwargs", given) if isinstance(given, str) else given
        generation = cast(dict[str, Any], given or {})
        # One that is null is left to Transformers.
        given = {name: value for name, value in generation.items() if value is not None}
        check_limits(given, GENERATION, "generation_kwargs: ")
        if not self.use_vllm:
            try_generation(generation, self.cache_implementation)
        try_parts(self)
        check_rollouts(self)
        check_mixture(self)
        self.given = Given(self, at_first)

    @property
    def layer_spec(self) -> str | tuple[int, ...]:
        """`layers` as `oprd.core.layers.select_layers` takes it."""
        return parse_layers(self.layers)

    def _settle_rate(self) -> None:
        """Until a rate is found, the paper's stands in for it."""
        self.finds_rate = self.learning_rate == AUTO
        if not self.finds_rate:
            return
        self.learning_rate = PAPERS_RATE  # pyright: ignore[reportIncompatibleVariableOverride] # wider
        if self.fp16:
            raise ValueError(
                "learning_rate='auto' makes optimizer steps of its own, without the loss scaling "
                "of fp16: use bf16, or set a rate."
            )
        if self.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy"):
            raise ValueError(
                "learning_rate='auto' sets the peak of a schedule by the step, and "
                f"lr_scheduler_type={self.lr_scheduler_type!r} follows the loss: take another, "
                "such as cosine."
            )
        if "min_lr" in (self.lr_scheduler_kwargs or {}):
            raise ValueError(
                "learning_rate='auto' is not known to lr_scheduler_kwargs' min_lr: give a share of "
                "it, min_lr_rate."
            )

    def _check_rows(self) -> None:
        """Enough positions in a response for the state loss to be other than zero."""
        plain = self.bridge == FIT and "heads" not in self.bridge_basis
        if plain and self.bridge_rank == 1 and self.scale == "unit":
            raise ValueError(
                "bridge_rank=1 leaves one number of a state, of which scale='unit' keeps the sign, "
                "and nothing is learned: take a higher rank, or another scale."
            )
        if self.positions == "divergence" and self.reduction == "token":
            raise ValueError(
                "positions='divergence' shares a weight of one out within each response, which "
                "reduction='token' does not have: leave one of them out."
            )
        rows = {"last": 1, "first_k": self.position_k, "last_k": self.position_k}
        rows = rows.get(self.positions, MOST)
        rows, least = min(rows, self.shortest_limit), self.state.least_rows
        if self.weights.representation.ever and rows < least:
            raise ValueError(
                f"state_loss={self.state_loss!r} compares the positions of a response with each "
                f"other, and of {rows} it learns nothing: supervise {least} or more by positions="
                f"{self.positions!r}, position_k={self.position_k} and a limit of "
                f"{self.shortest_limit} tokens, or take another state_loss."
            )

    def to_dict(self) -> dict[str, Any]:
        """As a mapping without secrets, in which a rate that is to be found is "auto"."""
        found = super().to_dict() | ({"learning_rate": AUTO} if self.finds_rate else {})
        return without_secrets(found, vars(self))

    def __repr__(self) -> str:
        """Without secrets, as what is written down."""
        return (
            f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.to_dict().items())})"
        )

    __str__ = __repr__

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled, by Transformers for instance: secrets are None in it."""
        return picklable(vars(self))

    def __copy__(self) -> Self:
        """A copy is no pickle: it keeps what is secret."""
        made = object.__new__(type(self))
        vars(made).update(vars(self))
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Likewise."""
        made = copy.copy(self)
        vars(made).update(copy.deepcopy(vars(self), memo))
        return made

    @property
    def allowed_changes(self) -> list[str]:
        """`allow_changed` one by one."""
        return parse_names(self.allow_changed or "")

    @property
    def rate(self) -> float:
        """`learning_rate` as a number."""
        return cast(float, self.learning_rate)


def _check_steps(max_steps: object, epochs: object) -> None:
    if max_steps == 0 or (isinstance(max_steps, int) and max_steps < -1):
        raise ValueError(f"max_steps must be at least 1, or -1 for whole epochs, got {max_steps}.")
    if max_steps == -1:
        check_positive("num_train_epochs", epochs)
