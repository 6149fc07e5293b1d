"""A student's response as a teacher with a tokenizer of its own reads it.

The teacher reads the bytes that the student wrote, in its own tokens, and its own special tokens in
the place of the student's. States meet where both have read the same, see `oprd.core.spans`.

Letters: B sequences, K response tokens of the student, M of the teacher.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from oprd.core.spans import partners
from oprd.models.end_tokens import named_ends
from oprd.models.special_tokens import SpecialTokens
from oprd.models.token_bytes import TokenBytes

# What a special token that both know counts in the place of bytes.
MARK = 1


class Reread(NamedTuple):
    """A response in the teacher's tokens.

    Attributes:
        ids: [M].
        partners: [K], by the student's token that a state predicts, which token of the teacher's
            its partner predicts, M for what comes after the last; see `oprd.core.spans.partners`.
        only_ends: whether states meet at the beginning and the end of its text alone, although
            neither model reads that in one token.
    """

    ids: list[int]
    partners: list[int]
    only_ends: bool = False


class OwnTokens:
    """What a teacher with a tokenizer of its own reads of the student's responses.

    Args:
        student: the student's tokenizer.
        teacher: the teacher's.
        special: what the teacher reads in the place of the student's special tokens.

    Raises:
        ValueError: the bytes of a tokenizer's tokens are not known.
    """

    def __init__(self, student: Any, teacher: Any, special: SpecialTokens) -> None:
        self.tokenizer, self.special = teacher, special
        self._student, self._teacher = _bytes("student", student), _bytes("teacher", teacher)

    @classmethod
    def of(
        cls,
        models: tuple[Any, Any],
        tokenizers: tuple[Any, Any],
        given: Mapping[str, str | None] | None = None,
    ) -> "OwnTokens":
        """Of two models and their tokenizers, the student's first.

        Args:
            models: that say where they stop.
            tokenizers: of both.
            given: see `SpecialTokens.of`.
        """
        stops = [named_ends(*both) for both in zip(models, tokenizers, strict=True)]
        return cls(*tokenizers, SpecialTokens.of(*tokenizers, (stops[0], stops[1]), given))

    def read(self, ids: Sequence[int], most: int | None = None) -> Reread:
        """A response as the teacher reads it.

        It reads as far as it can: to the end, or to the first byte that it has no token for.

        Args:
            ids: [K] tokens of the student.
            most: tokens that the teacher has room for; None for all.
        """
        ends: list[int] = []
        parts: list[bytearray | int] = [bytearray()]
        read = 0
        for token in ids:
            if token in self.special.partners:
                partner = self.special.partners[token]
                if partner is not None:
                    parts += [partner, bytearray()]
                    read += MARK
            else:
                piece = self._student[token]
                text = parts[-1]
                assert isinstance(text, bytearray)
                text += piece
                read += len(piece)
            ends.append(read)
        own, theirs = self._read(parts)
        own, theirs = own[:most], theirs[:most]
        found = partners(ends, theirs)
        return Reread(own, found, _only_ends(found, [0, *ends], [0, *theirs]))

    def _read(self, parts: Sequence[bytearray | int]) -> tuple[list[int], list[int]]:
        """The teacher's tokens of stretches of bytes and special tokens, and their ends."""
        found: list[int] = []
        lengths: list[int] = []
        for part in parts:
            if isinstance(part, int):
                found.append(part)
                lengths.append(MARK)
                continue
            ids = self._teacher.encode(bytes(part))
            found += ids
            lengths += [len(self._teacher[token]) for token in ids]
            if self._teacher.of(ids) != part:
                break
        return found, list(accumulate(lengths))


def _only_ends(found: Sequence[int], ours: Sequence[int], theirs: Sequence[int]) -> bool:
    """Whether nothing meets within a response; what comes first, and the end, are no part of it."""
    ours = ours[: len(found)]
    whole = max(ours, default=0)
    inner = [{read for read in states if 0 < read < whole} for states in (ours, theirs)]
    return all(inner) and not inner[0] & inner[1]


def _bytes(role: str, tokenizer: Any) -> TokenBytes:
    try:
        return TokenBytes(tokenizer)
    except ValueError as error:
        raise ValueError(f"teacher_tokenizer='own', the {role}'s tokenizer: {error}") from error
