"""Settings of what a batch is made of besides rollouts that the student writes for it alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from oprd.settings.rollouts import RolloutConfig, own_rollouts
from oprd.settings.serving import SERVER
from oprd.settings.weights import Weight, checked_weight
from oprd.values import parse_mapping

if TYPE_CHECKING:
    from oprd.settings.run import OPRDConfig


@dataclass
class MixtureConfig(RolloutConfig):
    """What a batch is made of besides rollouts that the student writes for it alone.

    Args:
        teacher_prefix: the share of a batch's responses that the teacher begins, drawn as the
            student's are, and after its own prompt where it has one. A number up to 1, or how it
            changes, `{"from": 1, "to": 0, "steps": 0.25}`, see `representation_weight`. What the
            teacher wrote is supervised as what the student writes.
        teacher_prefix_length: how many tokens of these responses it writes; all of them by default.
        replay: rollouts of earlier steps that are kept to be learned from again, over all
            processes; 0 keeps none.
        replay_share: the share of a batch that is drawn from them, instead of being written.
        max_drift_kl: drop a rollout once the student has drifted further than this from the one
            that wrote it, by `drift_kl` over its own tokens, as an update on it measures.
        curriculum: "error" draws prompts again among those that were met, as likely as their last
            rollouts' states were far from the teacher's.
        curriculum_floor: the share of a step's prompts that come in the usual order, in which every
            epoch passes all of them.

    Raises:
        ValueError: a value is illegal; the message names it.
    """

    # None where the student writes all.
    teacher_prefix: float | dict[str, Any] | str = field(
        default=cast(float, None),
        metadata={
            "help": "Share of a batch's responses that the teacher begins. A number, or such as "
            '{"from": 1, "to": 0, "steps": 0.25}.'
        },
    )
    teacher_prefix_length: int | None = field(
        default=None,
        metadata={"help": "Tokens of these responses that it writes; all of them by default."},
    )

    replay: int = field(
        default=0,
        metadata={"help": "Rollouts of earlier steps that are kept to be learned from again."},
    )
    replay_share: float = field(
        default=0.5, metadata={"help": "Share of a batch that is drawn from them."}
    )
    max_drift_kl: float | None = field(
        default=None,
        metadata={"help": "Drop a kept rollout once the student has drifted further from it."},
    )

    curriculum: str | None = field(
        default=None,
        metadata={"help": "error draws prompts again where the student is far from its teacher."},
    )
    curriculum_floor: float = field(
        default=0.5, metadata={"help": "Share of a step's prompts that come in the usual order."}
    )

    def __post_init__(self) -> None:
        """Check the form of each."""
        super().__post_init__()
        if self.teacher_prefix is not None:
            self.teacher_prefix = _checked_share("teacher_prefix", self.teacher_prefix)
        if self.curriculum not in (None, "error"):
            raise ValueError(
                f"curriculum is 'error', or is left out for the usual order, got "
                f"{self.curriculum!r}."
            )

    def prefix_share(self, step: int) -> float:
        """The share of the responses written before a step, from 0, that the teacher begins."""
        return 0.0 if self.teacher_prefix is None else self._prefix.at(step)

    @property
    def replayed_per_step(self) -> int:
        """Rollouts of one optimizer step that are drawn from earlier ones, over all processes."""
        return round(self.rollouts_per_step * self.replay_share) if self.replay else 0

    @property
    def written_per_step(self) -> int:
        """Those that are written for it."""
        return self.rollouts_per_step - self.replayed_per_step

    @property
    def loaded_per_step(self) -> int:
        """Those of these whose prompts come in the dataset's order."""
        if self.curriculum is None:
            return self.written_per_step
        prompts = self.written_per_step // self.rollouts_per_prompt
        return round(prompts * self.curriculum_floor) * self.rollouts_per_prompt

    @property
    def measures_drift(self) -> bool:
        """Whether the log-probabilities of the student's own tokens are needed."""
        return self.updates_per_rollout > 1 or self.replay > 0

    @property
    def _prefix(self) -> Weight:
        length = self.max_steps if self.max_steps > 0 else None
        return Weight.of("teacher_prefix", cast(Any, self.teacher_prefix), length)


def check_mixture(args: "OPRDConfig") -> None:
    """What a batch is made of fits the other settings.

    Raises:
        ValueError: it does not.
    """
    _check_prefix(args)
    _check_replay(args)
    _check_curriculum(args)


def _check_curriculum(args: "OPRDConfig") -> None:
    if args.curriculum is None:
        return
    if not any(own.weights.representation.ever for own in args.objectives()):
        raise ValueError(
            "curriculum='error' draws prompts by the distance of states, and representation_weight "
            "is 0: leave one of them out."
        )
    if args.teachers and args.teacher_batches == "pure":
        raise ValueError(
            "curriculum='error' draws prompts of any teacher, and teacher_batches='pure' keeps an "
            "update to one: set teacher_batches='mixed'."
        )
    loaded, written, world = args.loaded_per_step, args.written_per_step, args.world_size
    if not 0 < loaded < written or loaded % world or written % world:
        raise ValueError(
            f"curriculum_floor={args.curriculum_floor:g} of the {written} rollouts that are "
            f"written for a step leaves {loaded} for prompts in the usual order and "
            f"{written - loaded} for those that are drawn: there must be some of both, in equal "
            f"parts for {world} processes. Choose another floor or batch."
        )


def _check_replay(args: "OPRDConfig") -> None:
    most, share, step = args.max_drift_kl, args.replay_share, args.rollouts_per_step
    if not args.replay:
        if most is not None:
            raise ValueError(
                f"max_drift_kl={most} has no effect without replay, the rollouts that are kept: "
                "set that too."
            )
        return
    if args.replay < step:
        raise ValueError(
            f"replay={args.replay} keeps fewer rollouts than the {step} of a step: raise it."
        )
    if own := own_rollouts(args.objectives()):
        raise ValueError(
            f"output_loss={own!r} is the gradient of the student that wrote the rollouts, and "
            "those of replay were drawn from another distribution: leave one of them out."
        )
    if args.teachers and args.teacher_batches == "pure":
        raise ValueError(
            "replay draws rollouts of any teacher, and teacher_batches='pure' keeps an update to "
            "one: set teacher_batches='mixed'."
        )
    drawn, world = args.replayed_per_step, args.world_size
    unit = math.lcm(world, args.rollouts_per_prompt)
    if not 0 < drawn < step or args.written_per_step % unit or drawn % world:
        raise ValueError(
            f"replay_share={share:g} of the {step} rollouts of a step leaves "
            f"{args.written_per_step} to be written, which must be a multiple of "
            f"rollouts_per_prompt × processes' common multiple {unit}, and {drawn} to be drawn, "
            f"a multiple of {world} processes: choose another share or batch."
        )


def _check_prefix(args: "OPRDConfig") -> None:
    length = args.teacher_prefix_length
    if args.teacher_prefix is None:
        if length is not None:
            raise ValueError(
                f"teacher_prefix_length={length} has no effect without teacher_prefix, the share "
                "of responses that the teacher begins: set that too."
            )
        return
    # One that changes needs a run of known length.
    args.prefix_share(0)
    if own := own_rollouts(args.objectives()):
        raise ValueError(
            f"output_loss={own!r} is the gradient of the student that wrote the rollouts, and "
            "teacher_prefix lets the teacher write of them: leave one of them out."
        )
    if args.max_completion_length is None:
        raise ValueError(
            "teacher_prefix needs a limit on what the teacher writes: set max_completion_length."
        )
    limit = args.shortest_limit
    if length is not None and length >= limit:
        raise ValueError(
            f"teacher_prefix_length={length} leaves the student nothing of a response of "
            f"{limit} tokens: lower it, or leave it out to let the teacher write all of them."
        )
    given = args.generation_kwargs
    given = parse_mapping("generation_kwargs", given) if isinstance(given, str) else given
    least = (given or {}).get("min_new_tokens")
    if length is not None and least:
        raise ValueError(
            f"min_new_tokens={least} would be counted from where the student "
            "goes on: leave it or teacher_prefix_length out."
        )
    ways = {
        "the teacher stands on a server, which reads and does not write": (
            args.teacher_source == SERVER
        ),
        "the teacher reads other tokens than the student's (teacher_tokenizer='own')": (
            args.reads_own_tokens
        ),
        "there are several teachers, and a response has one beginning": bool(args.teachers),
        "vLLM holds the student alone (use_vllm)": args.use_vllm,
    }
    for why, holds in ways.items():
        if holds:
            raise ValueError(f"teacher_prefix lets the teacher write, and {why}: leave it out.")


def _checked_share(name: str, given: object) -> float | dict[str, Any]:
    """A share above 0 and up to 1, or how it changes."""
    found = checked_weight(name, given, zero=True)
    numbers = (found["from"], found["to"]) if isinstance(found, Mapping) else (found,)
    if not 0 < max(numbers) <= 1:
        raise ValueError(f"{name} is a share above 0, of 1 at most, got {max(numbers):g}.")
    return found
