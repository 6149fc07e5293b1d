"""One response as a model with tokens of its own reads it, and where it meets the student's.

Letters: K response tokens of the student, M of the teacher.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from oprd.core.spans import NONE, latest, partners

# What a special token that both know counts in the place of bytes.
MARK = 1


class Reread(NamedTuple):
    """A response in the teacher's tokens.

    Attributes:
        ids: [M].
        partners: [K], by the student's token that a state predicts, which token of the teacher's
            its partner predicts, M for what comes after the last; see `oprd.core.spans.partners`.
        latest: [K], likewise the teacher's state that has read the most of what the student's has,
            see `oprd.core.spans.latest`; `NONE` where their distributions are not compared.
        ahead: [K], what the student's has read beyond it.
        only_ends: whether states meet at the beginning and the end of its text alone, although
            neither model reads that in one token.
    """

    ids: list[int]
    partners: list[int]
    latest: list[int]
    ahead: list[bytes]
    only_ends: bool = False

    @classmethod
    def of(
        cls,
        ids: list[int],
        parts: Sequence[bytearray | int],
        ends: Sequence[int],
        own_ends: Sequence[int],
    ) -> "Reread":
        """A response by where tokens end in it.

        Args:
            ids: [M], the teacher's tokens.
            parts: stretches of bytes, and special tokens that both know.
            ends: [K] ends of the student's tokens.
            own_ends: [M] ends of the teacher's.
        """
        met, behind = partners(ends, own_ends), latest(ends, own_ends)
        read = [0, *ends], [0, *own_ends]
        ahead = _ahead(parts, behind, *read)
        behind = [NONE if a is None else state for state, a in zip(behind, ahead, strict=True)]
        return cls(ids, met, behind, [more or b"" for more in ahead], _only_ends(met, *read))

    def rows(self, positions: Tensor) -> Tensor:
        """[M + 1] bool: the teacher's states that meet the student's at positions [K] bool."""
        met = torch.tensor(self.partners, dtype=torch.long)
        rows = torch.zeros(len(self.ids) + 1, dtype=torch.bool)
        rows[met[positions & (met != NONE)]] = True
        return rows

    def compared(self) -> Tensor:
        """[K] bool: the student's states whose distributions are compared with one."""
        return torch.tensor(self.latest, dtype=torch.long) != NONE

    def response(self) -> Tensor:
        """[M + 1] bool: the teacher's states whose distributions are."""
        used = torch.zeros(len(self.ids) + 1, dtype=torch.bool)
        used[torch.tensor(self.latest, dtype=torch.long)[self.compared()]] = True
        return used

    def met(self) -> Tensor:
        """[K] bool: the student's states that meet one of the teacher's."""
        return torch.tensor(self.partners, dtype=torch.long) != NONE


def _ahead(
    parts: Sequence[bytearray | int],
    behind: Sequence[int],
    ours: Sequence[int],
    theirs: Sequence[int],
) -> list[bytes | None]:
    """What the student has read beyond the teacher; None where that is not bytes alone."""
    text: list[int | None] = []
    for part in parts:
        text += [None] * MARK if isinstance(part, int) else part

    def between(token: int, state: int) -> bytes | None:
        if state == NONE:
            return None
        found = [byte for byte in text[theirs[state] : ours[token]] if byte is not None]
        return bytes(found) if len(found) == ours[token] - theirs[state] else None

    return [between(token, state) for token, state in enumerate(behind)]


def _only_ends(found: Sequence[int], ours: Sequence[int], theirs: Sequence[int]) -> bool:
    """Whether nothing meets within a response; what comes first, and the end, are no part of it."""
    ours = ours[: len(found)]
    whole = max(ours, default=0)
    inner = [{read for read in states if 0 < read < whole} for states in (ours, theirs)]
    return all(inner) and not inner[0] & inner[1]
