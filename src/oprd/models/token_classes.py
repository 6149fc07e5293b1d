"""Which tokens of two vocabularies are one action: those with which the same text begins.

Where both models have read the same bytes, a text that goes on begins with one token of either
vocabulary. Tokens that both spell alike are a class. A token that one model alone has, such as
`12`, joins the class of the token with which the other model would begin its text, `1`. So either
model's probability that a text goes on in a class's way is the sum over the class's tokens.

Within a token of the teacher's the student has read a few bytes more, `1` of `12`. The teacher's
distribution from before them says how they go on, given them: with `2` where it writes `12`, and
otherwise than any of its longer tokens where it writes `1` alone. That is a class for each way in
which its tokens go on, and one for all others.

Tokens of no class are those that the other model cannot spell, and those that do not go on.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from oprd.core.output.classes import Classes
from oprd.models.token_bytes import TokenBytes

# Of the ways in which the student is ahead those that are kept ready: each is as long as both
# vocabularies.
KEPT = 64


class TokenClasses:
    """The classes of two vocabularies, by what the student has read and the teacher has not.

    Args:
        known: the bytes of both vocabularies' tokens, the student's first.
        common: [v] ids of either, of tokens that both spell alike or that have one role.
        sizes: rows of both LM heads.
        ends: tokens of either that end a response, which are one action.

    Attributes:
        met: those where both have read the same.

    Raises:
        ValueError: the vocabularies have nothing in common.
    """

    def __init__(
        self,
        known: tuple[TokenBytes, TokenBytes],
        common: tuple[Tensor, Tensor],
        sizes: tuple[int, int],
        ends: tuple[Collection[int], Collection[int]] = ((), ()),
    ) -> None:
        self.met = _classes(known, common, sizes, ends)
        self._student = known[0]
        # Of the student's tokens by what they begin: what the teacher cannot spell by itself, such
        # as the rest of a character, it may yet go on with.
        alone = self.met.count + torch.arange(sizes[0])
        self._ways = torch.where(self.met.student < self.met.count, self.met.student, alone)
        self._ours, self._theirs = (
            sorted((piece, token) for token in range(size) if (piece := of[token]))
            for of, size in zip(known, sizes, strict=True)
        )
        self.after = lru_cache(KEPT)(self._after)

    def _after(self, ahead: bytes, device: torch.device) -> Classes | None:
        """Those where the student has read bytes more; None where there is but one way to go on."""
        if not ahead:
            return self.met.to(device)
        begins: list[int] = self._ways.tolist()
        firsts: dict[bytes, int | None] = {}
        going_on: dict[int, int] = {}
        alone: list[int] = []
        for piece, token in _beginning(self._theirs, ahead):
            rest = piece[len(ahead) :]
            if rest and rest not in firsts:
                begun = [t for t in self._student.encode(rest)[:1] if t < len(begins)]
                firsts[rest] = begins[begun[0]] if begun else None
            if not rest:
                alone.append(token)
            elif (way := firsts[rest]) is not None:
                going_on[token] = way
        ways = sorted(set(going_on.values()))
        count = len(ways) + bool(alone)
        if count < 2:
            return None
        # What the student would write otherwise is a class if the teacher may stop here.
        table = torch.full((self.met.count + len(self._ways),), len(ways) if alone else count)
        table[ways] = torch.arange(len(ways))
        teacher = torch.full_like(self.met.teacher, count)
        teacher[alone] = len(ways)
        teacher[list(going_on)] = table[list(going_on.values())]
        student = table[self._ways]
        # A token of the student's may go on beyond the teacher's: with the longest that it begins.
        beyond = (student >= len(ways)).tolist()
        for rest in sorted(firsts, key=len):
            if (way := firsts[rest]) is not None:
                tokens = [token for _, token in _beginning(self._ours, rest) if beyond[token]]
                if tokens:
                    student[tokens] = table[way]
        return Classes(student, teacher, count).to(device)


def _beginning(spelled: Sequence[tuple[bytes, int]], text: bytes) -> Iterator[tuple[bytes, int]]:
    """Of tokens in the order of their bytes those that begin with a text."""
    for place in range(bisect_left(spelled, (text, -1)), len(spelled)):
        if not spelled[place][0].startswith(text):
            return
        yield spelled[place]


def _classes(
    known: tuple[TokenBytes, TokenBytes],
    common: tuple[Tensor, Tensor],
    sizes: tuple[int, int],
    ends: tuple[Collection[int], Collection[int]],
) -> Classes:
    pairs = list(zip(common[0].tolist(), common[1].tolist(), strict=True))
    alike = [pair for pair in pairs if pair[0] < sizes[0] and pair[1] < sizes[1]]
    found = [{pair[side]: number for number, pair in enumerate(alike)} for side in (0, 1)]
    none = len(alike)
    ended = next((found[side][e] for side in (0, 1) for e in ends[side] if e in found[side]), None)
    if ended is not None:
        for side in (0, 1):
            found[side] |= dict.fromkeys(ends[side], ended)

    def assign(side: int, token: int) -> int:
        """Of a token, by the one with which the other model begins its text."""
        if token not in found[side]:
            # A text that is its own beginning would lead back here.
            found[side][token] = none
            piece = known[side][token]
            begun = known[1 - side].encode(piece)[:1] if piece else []
            found[side][token] = next((assign(1 - side, first) for first in begun), none)
        return found[side][token]

    members = [torch.tensor([assign(side, t) for t in range(sizes[side])]) for side in (0, 1)]
    return Classes(members[0], members[1], none)
