"""What special tokens are for, and which of two vocabularies' mean the same.

One table for all who ask: where a model stops, and what a teacher of another vocabulary reads in
the place of the student's special tokens. A setting says otherwise where the table does not know.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

ROLES = {
    "<|endoftext|>": "end of text",
    "<|end_of_text|>": "end of text",
    "<|end▁of▁sentence|>": "end of text",
    "<｜end▁of▁sentence｜>": "end of text",
    "</s>": "end of text",
    "<eos>": "end of text",
    "<|eos|>": "end of text",
    "[EOS]": "end of text",
    "[|endofturn|]": "end of turn",
    "<|im_end|>": "end of turn",
    "<|eot_id|>": "end of turn",
    "<|eot|>": "end of turn",
    "<|end|>": "end of turn",
    "<|return|>": "end of turn",
    "<|end_of_turn|>": "end of turn",
    "<end_of_turn>": "end of turn",
    "<turn|>": "end of turn",
    "<|END_OF_TURN_TOKEN|>": "end of turn",
    "<|end_of_role|>": "end of role",
    "<|eom_id|>": "end of message",
    "<|eom|>": "end of message",
    "<|call|>": "end of message",
    "<think>": "beginning of thought",
    "[THINK]": "beginning of thought",
    "<thought>": "beginning of thought",
    "<seed:think>": "beginning of thought",
    "<|START_THINKING|>": "beginning of thought",
    "</think>": "end of thought",
    "[/THINK]": "end of thought",
    "</thought>": "end of thought",
    "</seed:think>": "end of thought",
    "<|END_THINKING|>": "end of thought",
}
# Either ends a response, of a model that was trained on texts or on turns.
STOPS = ("end of turn", "end of text")
# Tokens that a message lists.
SHOWN = 8


@dataclass(frozen=True)
class SpecialTokens:
    """The student's special tokens, and what a teacher reads in their place.

    Attributes:
        partners: by the student's id the teacher's; None where the teacher reads nothing there. An
            added token that is not here is read as the text that it is.
        names: how they are written, in the same order; the teacher's None likewise.
    """

    partners: dict[int, int | None]
    names: tuple[tuple[str, str | None], ...]

    @classmethod
    def of(
        cls,
        student: Any,
        teacher: Any,
        stops: tuple[Collection[int], Collection[int]],
        given: Mapping[str, str | None] | None = None,
    ) -> "SpecialTokens":
        """Those of two tokenizers, by what is given, by their names, and by their roles.

        Args:
            student: the student's tokenizer.
            teacher: the teacher's.
            stops: ids at which either model stops; one of the student's that has no partner
                otherwise meets the first of the teacher's.
            given: the teacher's token by the student's; None for nothing.

        Raises:
            ValueError: what is given is no token.
        """
        ours, theirs = _added(student), _added(teacher)
        found: dict[int, int | None] = {}
        for index, (name, special) in ours.items():
            partner = _partner(name, index, theirs, stops)
            # Of added text, what the teacher has as the same added text needs no partner.
            if special or (partner is not None and theirs[partner] != (name, False)):
                found[index] = partner
        for name, other in (given or {}).items():
            index = _index(student, name, "student")
            found[index] = None if other is None else _index(teacher, other, "teacher")
        names = tuple(
            (_name(student, index), None if other is None else _name(teacher, other))
            for index, other in found.items()
        )
        return cls(found, names)

    def words(self) -> str:
        """Says what meets what, and names what meets nothing."""
        met = [f"{ours}{_role(ours)} → {theirs}" for ours, theirs in self.names if theirs]
        alone = [ours for ours, theirs in self.names if theirs is None]
        said = f"Special tokens, the student's → the teacher's: {_listed(met) or 'none'}."
        if alone:
            said += (
                f" Without a partner, so that the teacher reads nothing in their place: "
                f"{_listed(alone)}; teacher_special_tokens can name one."
            )
        return said


def _partner(
    name: str,
    index: int,
    theirs: Mapping[int, tuple[str, bool]],
    stops: tuple[Collection[int], Collection[int]],
) -> int | None:
    """A token of the teacher's with the same name, else with the same role, the one it stops at."""
    role = ROLES.get(name)
    alike = [other for other, (own, _) in theirs.items() if own == name]
    if not alike and role is not None:
        alike = [other for other, (own, _) in theirs.items() if ROLES.get(own) == role]
        alike.sort(key=lambda other: other not in stops[1])
    if not alike and (index in stops[0] or role in STOPS):
        alike = sorted(stops[1])
    return alike[0] if alike else None


def _added(tokenizer: Any) -> dict[int, tuple[str, bool]]:
    added = tokenizer.added_tokens_decoder.items()
    return {int(index): (str(token.content), bool(token.special)) for index, token in added}


def _index(tokenizer: Any, name: str, role: str) -> int:
    index = tokenizer.get_vocab().get(name)
    if index is None:
        raise ValueError(
            f"teacher_special_tokens names {name!r}, which is no token of the {role}: it maps the "
            "student's tokens to the teacher's, or to null for nothing."
        )
    return int(index)


def _name(tokenizer: Any, index: int) -> str:
    return str(tokenizer.convert_ids_to_tokens(index))


def _role(name: str) -> str:
    return f" ({ROLES[name]})" if name in ROLES else ""


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
