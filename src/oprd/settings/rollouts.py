"""Settings of how many rollouts are written when, how long, and how often each is used."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from trl.trainer.distillation_config import DistillationConfig

from oprd.runs.checkpoints import checkpoint_step
from oprd.runs.limits import MOST
from oprd.settings.weights import Weight, checked_weight
from oprd.values import parse_mapping

# How a horizon is written, from one limit to the other in half a run.
_FORM = '{"from": 16, "to": 56, "steps": 0.5}'

if TYPE_CHECKING:
    from oprd.settings.objective import ObjectiveConfig
    from oprd.settings.run import OPRDConfig


@dataclass
class RolloutConfig(DistillationConfig):
    """How many rollouts are written when, how long, and how often each is used.

    Args:
        rollouts_per_prompt: rollouts that the student writes for each prompt of a batch.
        updates_per_rollout: optimizer steps on the same rollouts. A regression on states needs no
            importance ratio; how far the student has moved since the first of them is logged as
            `drift_kl`, with the noise of dropout in it where there is any. Checkpoints fall between
            rollouts.
        rollouts_ahead: batches of rollouts that are written at once, so that more sequences share
            each reading of the weights. Each is used as often as ever, the later ones by a student
            that the updates on the earlier ones have moved; `drift_kl` does not see that.
            Checkpoints fall where they are used up.
        rollout_horizon: the most tokens of a response, step by step, where it is not
            `max_completion_length` throughout: a mapping such as
            `{"from": 16, "to": 56, "steps": 0.5}`, see `representation_weight`.
        leave_ended: let Transformers write on without the responses of a batch that have ended,
            once a quarter of those that it writes have. The same responses are as likely; a seed
            draws others.
        keep_teacher_states: with `updates_per_rollout`, keep what the teacher read for all of them.
            Where memory is short, let it read again.

    Raises:
        ValueError: a value is illegal; the message names it.
    """

    rollouts_per_prompt: int = field(
        default=1, metadata={"help": "Rollouts that the student writes for each prompt."}
    )
    updates_per_rollout: int = field(
        default=1, metadata={"help": "Optimizer steps on the same rollouts."}
    )
    rollouts_ahead: int = field(
        default=1, metadata={"help": "Steps whose rollouts are written at once."}
    )
    rollout_horizon: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "The most tokens of a response, step by step, such as "
            '{"from": 16, "to": 56, "steps": 0.5}.'
        },
    )
    leave_ended: bool = field(
        default=False,
        metadata={"help": "Write on without the responses of a batch that have ended."},
    )
    keep_teacher_states: bool = field(
        default=True,
        metadata={"help": "Let the teacher read rollouts once, not anew in each update on them."},
    )

    def __post_init__(self) -> None:
        """Check the schedule of the limit."""
        super().__post_init__()
        if self.rollout_horizon is not None:
            self.rollout_horizon = _checked_horizon(
                self.rollout_horizon, self.max_completion_length or MOST
            )

    @property
    def rollouts_per_step(self) -> int:
        """Rollouts of one optimizer step, over all processes."""
        per_device = self.per_device_train_batch_size * self.gradient_accumulation_steps
        return per_device * self.world_size

    @property
    def written_per_step(self) -> int:
        """Those of them that are written for it."""
        return self.rollouts_per_step

    @property
    def loaded_per_step(self) -> int:
        """Those of these whose prompts come in the dataset's order."""
        return self.written_per_step

    @property
    def rollouts_needed(self) -> tuple[int, int, int]:
        """For each prompt in the dataset's order, for each step, and of how many steps at once."""
        return self.rollouts_per_prompt, self.loaded_per_step, self.rollouts_ahead

    @property
    def order_seed(self) -> int:
        """Of the order in which prompts come."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def steps_per_writing(self) -> int:
        """Optimizer steps from one time of writing to the next."""
        return self.updates_per_rollout * self.rollouts_ahead

    def response_limit(self, step: int) -> int | None:
        """The most tokens of a response that is written before a step, counted from 0."""
        if self.rollout_horizon is None:
            return self.max_completion_length
        return round(self._horizon.at(step))

    @property
    def shortest_limit(self) -> int:
        """The most tokens of a response at the step that allows fewest."""
        given = cast(Mapping[str, Any] | None, self.rollout_horizon)
        whole = self.max_completion_length or MOST
        return whole if given is None else int(min(given["from"], given["to"]))

    @property
    def _horizon(self) -> Weight:
        given = cast(Mapping[str, Any], self.rollout_horizon)
        length = self.max_steps if self.max_steps > 0 else None
        return Weight.of("rollout_horizon", given, length)


def check_rollouts(args: "OPRDConfig") -> None:
    """A generation batch holds whole groups of rollouts, and a checkpoint falls after one.

    Raises:
        ValueError: it does not, or several steps use rollouts that only the first of them may.
    """
    if args.rollout_horizon is not None:
        # It needs a run of known length.
        args.response_limit(0)
        _check_shortest(args)
    if args.leave_ended:
        _check_leaving(args)
    several = _several_steps(args)
    if several and (written := own_rollouts(args.objectives())):
        raise ValueError(
            f"output_loss={written!r} is the gradient of the student that wrote the rollouts, and "
            f"{several}: take another output loss, or "
            f"{'set a rate' if args.finds_rate else 'write before each update'}."
        )
    stages = enumerate(args.schedule.steps, 1)
    steps_of: dict[str, float] = {f"stage {n} has {s} steps, which": s for n, s in stages}
    steps_of[f"max_steps={args.max_steps}"] = max(args.max_steps, 0)
    if args.save_strategy in ("steps", "best"):
        name = "save_steps" if args.save_strategy == "steps" else "eval_steps"
        found = getattr(args, name) or 0
        steps_of[f"{name}={found:g}"] = found
    if args.steps_per_writing > 1 and args.max_steps <= 0:
        _check_epochs(args, steps_of)
    for name, asked in steps_of.items():
        # Below 1 it is a share of all steps.
        steps = math.ceil(asked * args.max_steps) if 0 < asked < 1 and several else asked
        if steps % args.steps_per_writing and args.steps_per_writing > 1:
            raise ValueError(
                f"{name} must be a multiple of {_product(args)}: a run can be resumed "
                "only where all that was written is used up."
            )
    if args.rollouts_per_step % args.rollouts_per_prompt:
        raise ValueError(
            f"a step holds {args.rollouts_per_step} rollouts (per_device_train_batch_size × "
            f"gradient_accumulation_steps × processes), which rollouts_per_prompt="
            f"{args.rollouts_per_prompt} does not divide."
        )


def check_used_up(args: "OPRDConfig", checkpoint: Path) -> None:
    """Refuse, with a ValueError, a checkpoint at a step where rollouts were left to be used."""
    if args.steps_per_writing > 1 and checkpoint_step(checkpoint) % args.steps_per_writing:
        raise ValueError(
            f"{str(checkpoint)!r} stands where not all that was written is used up: with "
            f"{_product(args)} a run goes on from a step that is a multiple of it. Name a "
            "checkpoint of such a step, or train this student in a new run as its model."
        )


def _check_epochs(args: "OPRDConfig", steps_of: Mapping[str, float]) -> None:
    """Where the number of steps follows from the data, whole epochs alone are known to fit."""
    for name, asked in steps_of.items():
        if 0 < asked < 1:
            raise ValueError(
                f"{name} is a share of steps of which nobody knows yet how many they are, and must "
                f"come to a multiple of {_product(args)}: set it to such a number of steps, or set "
                "max_steps."
            )
    if args.num_train_epochs != int(args.num_train_epochs):
        raise ValueError(
            f"num_train_epochs={args.num_train_epochs:g} may end the run where not all that was "
            f"written is used up, with {_product(args)}: set whole epochs, or set max_steps."
        )


def _checked_horizon(given: object, limit: int) -> dict[str, Any]:
    instead = "set max_completion_length to it"
    found = checked_weight(
        "rollout_horizon", given, zero=False, form=_FORM, instead=f"{instead}, and leave this out"
    )
    if not isinstance(found, dict):
        raise ValueError(f"rollout_horizon={found:g} does not change: {instead}.")
    for name in ("from", "to"):
        if found[name] != int(found[name]) or not 1 <= found[name] <= limit:
            raise ValueError(
                f"rollout_horizon: {name} must be a whole number from 1 to "
                f"max_completion_length={limit}, got {found[name]:g}."
            )
    return found


def _check_shortest(args: "OPRDConfig") -> None:
    given = args.generation_kwargs
    given = parse_mapping("generation_kwargs", given) if isinstance(given, str) else given
    least = (given or {}).get("min_new_tokens") or 0
    if args.shortest_limit < least:
        raise ValueError(
            f"generation_kwargs asks for {least} tokens at least (min_new_tokens), and "
            f"rollout_horizon allows {args.shortest_limit} at some step: raise it."
        )


def _check_leaving(args: "OPRDConfig") -> None:
    """What a call of `generate` counts from its beginning would begin anew."""
    given = args.generation_kwargs
    given = parse_mapping("generation_kwargs", given) if isinstance(given, str) else given
    given = given or {}
    counted = ("min_new_tokens", "begin_suppress_tokens", "exponential_decay_length_penalty")
    counted = next((f"{name}={given[name]!r}" for name in counted if given.get(name)), "")
    beams = (given.get("num_beams") or 1) > 1
    for name, holds in {
        "use_vllm=True": args.use_vllm,
        f"cache_implementation={args.cache_implementation!r}": args.cache_implementation,
        "num_beams": beams,
        counted: counted,
    }.items():
        if holds:
            raise ValueError(
                f"leave_ended=True lets Transformers' generate stop and go on with a part of its "
                f"rows, which {name} does not allow: leave one of them out."
            )


def _several_steps(args: "OPRDConfig") -> str:
    """Why rollouts are used by another student than wrote them; nothing where they are not."""
    if args.finds_rate:
        return "learning_rate='auto' makes several updates on them"
    if args.updates_per_rollout > 1:
        return f"updates_per_rollout={args.updates_per_rollout} makes several updates on them"
    if args.rollouts_ahead > 1:
        return f"rollouts_ahead={args.rollouts_ahead} makes other updates before those on them"
    return ""


def _product(args: "OPRDConfig") -> str:
    names = ("updates_per_rollout", "rollouts_ahead")
    factors = {name: getattr(args, name) for name in names}
    return " × ".join(f"{name}={value}" for name, value in factors.items() if value > 1)


def own_rollouts(objectives: "Sequence[ObjectiveConfig]") -> str | None:
    """The first output loss that holds only for rollouts of the student as it is."""
    return next((o.output_loss for o in objectives if o.output and o.output.own_rollouts), None)
