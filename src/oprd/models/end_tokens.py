"""Tokens that end a response, of two models whose ids mean the same.

A base model ends a text where a chat model ends its turn. A student that is pulled to a teacher
which stops at another token learns to write that one, and would write on behind it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from oprd.log import get_logger
from oprd.models.generate import end_token_ids
from oprd.models.special_tokens import ROLES

logger = get_logger(__name__)

# After these something else follows, such as what a tool returns.
NO_END = ("end of message", "end of role")


@dataclass(frozen=True)
class EndTokens:
    """Where two models stop.

    Attributes:
        student: ids at which the student stops, in their order.
        teacher: ids at which the teacher stops.
        names: by id, how the token is written.
    """

    student: tuple[int, ...]
    teacher: tuple[int, ...]
    names: dict[int, str]

    @classmethod
    def of(
        cls, student: Any, teacher: Any, tokenizer: Any, teacher_tokenizer: Any = None
    ) -> "EndTokens":
        """Of two models whose token ids mean the same.

        Args:
            student: a causal language model.
            teacher: likewise.
            tokenizer: the student's.
            teacher_tokenizer: the teacher's; without one its model alone says where it stops.

        Raises:
            ValueError: the student's tokenizer has no end token, and its model names none.
        """
        known = len(tokenizer)
        ends = named_ends(teacher, teacher_tokenizer)
        own, theirs = end_token_ids(student, tokenizer), sorted(end for end in ends if end < known)
        names = {end: str(tokenizer.convert_ids_to_tokens(end)) for end in {*own, *theirs}}
        return cls(tuple(own), tuple(theirs), names)

    @property
    def joined(self) -> tuple[int, ...]:
        """Ids at which a response of the student stops where it stops at either's.

        A token of the teacher's that ends a message but no turn is left out.
        """
        theirs = [end for end in self.teacher if ROLES.get(self.names[end]) not in NO_END]
        return tuple(dict.fromkeys([*self.student, *theirs]))

    def difference(self) -> str | None:
        """Says what differs; None where nothing does."""
        if not set(self.teacher) - set(self.student):
            return None
        return (
            f"The student stops at {self._words(self.student)}, and the teacher at "
            f"{self._words(self.teacher)}."
        )

    def _words(self, ends: Sequence[int]) -> str:
        roles = ((self.names[end], ROLES.get(self.names[end])) for end in ends)
        return " or ".join(name if role is None else f"{name} ({role})" for name, role in roles)


def stop_at_either(trainer: Any, ends: EndTokens) -> None:
    """Let a trainer's student stop wherever its teacher does, in this run and once it is saved.

    Args:
        trainer: TRL's, whose engine is set up already.
        ends: of both models.
    """
    if ends.joined == ends.student:
        return
    stops = [*ends.joined]
    trainer.eos_token_ids = stops
    trainer.generation_config.eos_token_id = stops
    trainer.generation_kwargs["eos_token_id"] = stops
    trainer.model.generation_config.eos_token_id = stops
    if trainer.use_vllm:
        engine = trainer.vllm_generation
        # Those of the settings, and of a teacher before this one.
        known = engine.generation_kwargs.get("stop_token_ids") or ()
        # Not in place: the mapping is the settings' own.
        joined = {"stop_token_ids": [*dict.fromkeys([*known, *stops])]}
        engine.generation_kwargs = engine.generation_kwargs | joined
    logger.warning(
        f"{ends.difference()} Rollouts stop at any of them, output-space losses take them for one "
        "token, and the student is saved with all of them; end_tokens='student' leaves it its own."
    )


def turn_ends(ends: Iterable[int], tokenizer: Any) -> set[int]:
    """Of tokens at which a model stops those after which nothing follows."""
    names = {end: str(tokenizer.convert_ids_to_tokens(end)) for end in ends}
    return {end for end, name in names.items() if ROLES.get(name) not in NO_END}


def named_ends(model: Any, tokenizer: Any) -> set[int]:
    """Ids at which a model stops, as it and its tokenizer, where there is one, name them."""
    named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several: list[Any] = named if isinstance(named, list) else [named]
    own = cast(Any, tokenizer.eos_token_id) if tokenizer is not None else None
    return {int(end) for end in (own, *several) if end is not None}
