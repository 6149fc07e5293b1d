"""Settings of what a student is trained towards, in a whole run or in each of its stages."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, cast, get_args

from trl.trainer.distillation_config import DistillationConfig

from oprd.core.bridge.bases import CHOICES, HEADS, PROMPTS, PROMPTS_OF_HEADS, reads_heads
from oprd.core.bridge.file import bases_in
from oprd.core.bridge.heads import METRICS
from oprd.core.objective import OUTPUT_LOSSES, STATE_LOSSES, make_loss
from oprd.core.output.loss import OutputLoss
from oprd.core.reduction import Reduction
from oprd.core.states.distance import SquaredDistance
from oprd.core.states.loss import UNIT_LENGTH, StateLoss
from oprd.settings.scale import settled_scale
from oprd.settings.stages import Schedule, parse_stages
from oprd.settings.weights import Weight, Weights, checked_weight, usual_weight
from oprd.values import check_choice, check_positive, parse_mapping, refuse_renamed


@dataclass
class ObjectiveConfig(DistillationConfig):
    """The terms of the objective (Eq. 7), the space in which states are compared, and stages.

    Args:
        scale: what the size of states does to their squared distance: "none" leaves it in (Eq. 6),
            "layer" divides each layer's by the mean square of the teacher's states there, measured
            on the first rollouts, "unit", the default, compares states at unit length (Eq. 14). A
            pair that meets through both LM heads is summed over directions whatever it says.
        reduction: "sequence" averages a response's positions first (Eq. 6), "token" does not.
        representation_weight: the factor µ of the representation loss (Eq. 7), by default 10 at
            unit length, and 1 otherwise or through LM heads. A number, or how it changes, `{from,
            to, start, steps, shape}`: linear or cosine, with `start` (0) and `steps` in steps or
            below 1 as shares of those of the run, or of each stage. 0 leaves the loss out, which
            needs an `output_loss`.
        state_loss: a name in `oprd.core.objective.STATE_LOSSES` ("mse" is Eq. 6).
        state_loss_kwargs: its parameters, those of its class there.
        output_loss: the output-space loss beside it, on all response tokens: "none", or a name in
            `oprd.core.objective.OUTPUT_LOSSES` ("sampled" is Eq. 3, "topk" Eq. 5, "reverse_kl"
            Eq. 4). It reads both LM heads' weights over the tokens that both models have. TRL's
            `temperature` divides its logits, as it does the sampler's. "sampled" is an unbiased
            estimate of the reverse KL where nothing else alters the sampler (`top_p`, `top_k`, …).
        output_loss_kwargs: its parameters, those of its class there.
        output_weight: the factor of the output-space loss, likewise.
        diagnostics_steps: every so many steps, and in evaluation, measure how far apart the two
            next-token distributions are: overlap of the 16 likeliest tokens, entropies, KL(p‖q),
            policy-gradient loss and the last states' cosine over all response tokens, and the
            cosine of the chosen layers even where no term compares them. 0 never does. Such a step
            forms both models' logits, a chunk of rows at a time.
        prefix_gradients: let the gradient flow back through what stands before the supervised
            window. Without, those tokens are read into a KV cache and their keys and values are
            constants: the same loss, less time and memory, and a biased gradient. The window is
            each response's supervised stretch, with an `output_loss` all of the response; without
            one a response shorter than `position_k` keeps the exact gradient.
        bridge: compare states in the space of a bridge: the path of its file, or "fit" to fit one
            on the first prompts and keep it in the output directory. Where the state loss compares
            states themselves, models of different width need one, and so do unrelated models of
            equal width.
        bridge_basis: how "fit" chooses directions: "heads" for the last pair, with layers="last",
            "pca", "rrr" or "fisher" for all pairs, or one of these below it, as in "pca+heads".
        bridge_rank: dimensions of the bridge that "fit" fits, but for a pair of LM heads.
        heads_metric: in which "heads" compares logits: "centered", "prior" or "fisher".
        heads_rank: dimensions of the pair of LM heads; by default all that the student's has.
        bridge_prompts: prompts whose rollouts "fit" reads: by default the paper's 2,000, of heads
            alone, which are not fitted, 128.
        stages: parts of the run, each with an objective of its own, in their order. Each is a
            mapping with its number of `steps` and any of the settings in
            `oprd.settings.stages.STAGE_SETTINGS`; what it leaves out is the run's. The learning
            rate's warm-up and schedule run once in each. On the command line as JSON.

    Raises:
        ValueError: a value is illegal; the message names it.
    """

    scale: str | None = field(
        default=None,
        metadata={
            "help": "Size of states in their distance: none (left in, as in the paper), layer "
            "(relative to the teacher's at each layer) or unit (unit length, the default)."
        },
    )
    reduction: str = field(
        default="sequence",
        metadata={"help": '"sequence" averages over a response first (Eq. 6); "token" does not.'},
    )
    representation_weight: float | dict[str, Any] | str = field(
        # Settled by the scale.
        default=cast(float, None),
        metadata={
            "help": "Factor of the representation loss (µ in Eq. 7), by default 10 at unit length "
            "and 1 otherwise; 0 leaves it out. A number, or such as "
            '{"from": 1, "to": 0, "steps": 100}.'
        },
    )
    state_loss: str = field(
        default="mse",
        metadata={"help": f"The representation loss: {', '.join(STATE_LOSSES)}."},
    )
    state_loss_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Its parameters."}
    )
    output_loss: str = field(
        default="none",
        metadata={"help": f"Output-space loss beside it: none, {', '.join(OUTPUT_LOSSES)}."},
    )
    output_loss_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": 'Its parameters, such as {"k": 16} for topk or {"beta": 0.5} for jsd.'},
    )
    output_weight: float | dict[str, Any] | str = field(
        default=1.0, metadata={"help": "Factor of the output-space loss, likewise."}
    )
    diagnostics_steps: int = field(
        default=0,
        metadata={"help": "Measure the paper's diagnostics every so many steps; 0 never does."},
    )
    prefix_gradients: bool = field(
        default=True,
        metadata={
            "help": "Let the gradient flow back through what stands before the supervised window; "
            "without, an update takes less time and memory, and its gradient is biased."
        },
    )
    bridge: str | None = field(
        default=None,
        metadata={"help": 'Compare states through a bridge: its file, or "fit" to fit one first.'},
    )
    bridge_basis: str = field(
        default="pca",
        metadata={"help": f"Directions of the bridge that it fits: {', '.join(CHOICES)}."},
    )
    bridge_rank: int = field(default=8, metadata={"help": "Its rank; not that of heads."})
    heads_metric: str = field(
        default="centered",
        metadata={"help": f"How heads compare logits: {', '.join(METRICS)}."},
    )
    heads_rank: int | None = field(
        default=None, metadata={"help": "Rank of the pair of LM heads; by default all there is."}
    )
    bridge_prompts: int = field(
        default=cast(int, None),
        metadata={
            "help": f'Prompts whose rollouts "fit" reads, by default {PROMPTS} (the paper\'s), '
            f"and {PROMPTS_OF_HEADS} of heads alone."
        },
    )
    stages: list[dict[str, Any]] | str | None = field(
        default=None,
        metadata={"help": "Parts of the run, each with its steps and an objective of its own."},
    )

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse names of earlier versions, which construction would only call unexpected."""
        for name in kwargs:
            refuse_renamed(name)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Check every value, of the run and of each stage."""
        check_choice("reduction", self.reduction, get_args(Reduction))
        check_choice("bridge_basis", self.bridge_basis, CHOICES)
        check_choice("heads_metric", self.heads_metric, METRICS)
        self.stages = parse_stages(self.stages)
        self._scale_is_default = self.scale is None
        self._weight_is_default = self.representation_weight is None
        length = None if self.max_steps == -1 else self.max_steps
        self._resolve(length, in_stages=bool(self.stages))
        self.max_steps = self.schedule.total(self.max_steps)
        self.objectives()
        super().__post_init__()

    @property
    def state(self) -> StateLoss:
        """The representation loss."""
        options = dict(cast(Mapping[str, Any], self.state_loss_kwargs or {}))
        if UNIT_LENGTH in options:
            raise ValueError(f"state_loss_kwargs: {UNIT_LENGTH} is set by scale='unit'.")
        if self.scale == "unit":
            options[UNIT_LENGTH] = True
        return make_loss(STATE_LOSSES, self.state_loss, options, "state_loss")

    @property
    def state_through_heads(self) -> StateLoss:
        """The representation loss of a pair whose bridge reads LM heads: a distance is summed."""
        loss = self.state
        return SquaredDistance(summed=True) if isinstance(loss, SquaredDistance) else loss

    @property
    def fits_heads(self) -> bool:
        """Whether a bridge is fitted for which LM heads are read."""
        return self.bridge == "fit" and reads_heads(self.bridge_basis)

    @property
    def through_heads(self) -> bool:
        """Whether a pair meets through both LM heads, in a bridge that is fitted or in a file."""
        named = isinstance(self.bridge, str) and self.bridge != "fit"
        return self.fits_heads or (named and HEADS in bases_in(cast(str, self.bridge)))

    @property
    def row_by_row(self) -> bool:
        """Whether the representation loss pulls the student's states to the teacher's very own."""
        return self.bridge is None and self.state.equal_widths

    @property
    def output(self) -> OutputLoss | None:
        """The output-space loss, None where there is none."""
        options = cast(Mapping[str, Any], self.output_loss_kwargs or {})
        if self.output_loss != "none":
            return make_loss(OUTPUT_LOSSES, self.output_loss, options, "output_loss")
        if options:
            raise ValueError(f"output_loss_kwargs={options!r} needs an output_loss.")
        return None

    @property
    def weights(self) -> Weights:
        """The factors of both terms, step by step of the run or, of a stage's settings, of it."""
        output = self.output_weight if self.output_loss != "none" else 0.0
        given = {"representation_weight": self.representation_weight, "output_weight": output}
        return Weights(*(Weight.of(name, cast(Any, w), self._length) for name, w in given.items()))

    @property
    def schedule(self) -> Schedule:
        """Which steps belong to which stage."""
        return Schedule([stage["steps"] for stage in self._stages])

    @property
    def _stages(self) -> list[dict[str, Any]]:
        return cast(list[dict[str, Any]], self.stages or [])

    def objectives(self) -> list[Self]:
        """The settings of each stage in their order; of the run where it has no stages."""
        found = []
        for number, stage in enumerate(self._stages, 1):
            settings = copy.copy(self)
            if "learning_rate" in stage and getattr(self, "finds_rate", False):
                raise ValueError(
                    f"stage {number} has a learning_rate, and that of the run is 'auto': let all "
                    "stages have the one that is found, or give each its own."
                )
            for name in ("state_loss", "output_loss"):
                # Another loss begins with parameters of its own.
                if stage.get(name, getattr(self, name)) != getattr(self, name):
                    setattr(settings, f"{name}_kwargs", None)
            for name, value in stage.items():
                if name != "steps":
                    setattr(settings, name, value)
            settings._scale_is_default &= "scale" not in stage
            settings._weight_is_default &= "representation_weight" not in stage
            try:
                settings._resolve(stage["steps"], in_stages=False)
            except ValueError as error:
                raise ValueError(f"stage {number}: {error}") from error
            found.append(settings)
        return found or [self]

    @property
    def bridged(self) -> bool:
        """Whether any stage compares states through a bridge."""
        return any(settings.bridge is not None for settings in self.objectives())

    @property
    def compares_states(self) -> bool:
        """Whether any stage does, be it for diagnostics alone."""
        weighed = any(settings.weights.representation.ever for settings in self.objectives())
        return self.diagnostics_steps > 0 or weighed

    @property
    def reads_heads(self) -> bool:
        """Whether the LM heads' weights are read, in some steps or in all."""
        return self.output_loss != "none" or self.diagnostics_steps > 0

    def _resolve(self, length: int | None, *, in_stages: bool) -> None:
        """Check what a stage may set, and settle `scale`, for so many steps.

        Weights of a run in stages are theirs to check, each over its own steps.
        """
        self._length, self._in_stages = length, in_stages
        for name in ("state_loss_kwargs", "output_loss_kwargs"):
            value = getattr(self, name)
            value = parse_mapping(name, value) if isinstance(value, str) else value
            if not isinstance(value, dict | None):
                raise ValueError(f"{name} must be a mapping of parameters, got {value!r}.")
            setattr(self, name, value)
        self._settle_scale()
        self._check_terms()
        check_positive("learning_rate", self.learning_rate, below=100.0)
        if self.bridge is not None and not (isinstance(self.bridge, str) and self.bridge):
            raise ValueError(f'bridge must be a path or "fit", got {self.bridge!r}.')

    def _settle_scale(self) -> None:
        """What is not given follows from the loss, and the weight from the scale."""
        check_choice("state_loss", self.state_loss, tuple(STATE_LOSSES))
        summed = self.fits_heads and self.bridge_basis == HEADS
        given = None if self._scale_is_default else self.scale
        self.scale = settled_scale(given, self.state_loss, summed=summed)
        if self._weight_is_default:
            self.representation_weight = usual_weight(self.scale, of_logits=self.through_heads)

    def _check_terms(self) -> None:
        """At least one term, each with what it needs."""
        check_choice("output_loss", self.output_loss, ("none", *OUTPUT_LOSSES))
        # Constructing them checks their parameters.
        _ = self.state, self.output
        alone = self.output_loss == "none"
        self.output_weight = checked_weight("output_weight", self.output_weight, zero=False)
        self.representation_weight = checked_weight(
            "representation_weight", self.representation_weight, zero=not alone
        )
        if self._in_stages:
            return
        if alone and isinstance(self.output_weight, dict):
            raise ValueError("output_weight changes, and there is no output_loss to weigh.")
        self.weights.check(self._length)
