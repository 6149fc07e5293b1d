"""Which tokens of two vocabularies are one action: those with which the same text begins.

Where both models have read the same bytes, a text that goes on begins with one token of either
vocabulary. Tokens that both spell alike are a class. A token that one model alone has, such as
`12`, joins the class of the token with which the other model would begin its text, `1`. So either
model's probability that a text goes on in a class's way is the sum over the class's tokens.

What the other model cannot spell, and special tokens without a partner, are one class of their own.
"""

from collections.abc import Collection

import torch
from torch import Tensor

from oprd.core.output.classes import Classes
from oprd.models.token_bytes import TokenBytes


def token_classes(
    known: tuple[TokenBytes, TokenBytes],
    common: tuple[Tensor, Tensor],
    sizes: tuple[int, int],
    ends: tuple[Collection[int], Collection[int]] = ((), ()),
) -> Classes:
    """The classes of two vocabularies.

    Args:
        known: the bytes of both vocabularies' tokens, the student's first.
        common: [v] ids of either, of tokens that both spell alike or that have one role.
        sizes: rows of both LM heads.
        ends: tokens of either that end a response, which are one action.

    Raises:
        ValueError: the vocabularies have nothing in common.
    """
    pairs = list(zip(common[0].tolist(), common[1].tolist(), strict=True))
    alike = [pair for pair in pairs if pair[0] < sizes[0] and pair[1] < sizes[1]]
    found = [{pair[side]: number for number, pair in enumerate(alike)} for side in (0, 1)]
    rest = len(alike)
    ended = next((found[side][e] for side in (0, 1) for e in ends[side] if e in found[side]), None)
    if ended is not None:
        for side in (0, 1):
            found[side] |= dict.fromkeys(ends[side], ended)

    def assign(side: int, token: int) -> int:
        """Of a token, by the one with which the other model begins its text."""
        if token not in found[side]:
            # A text that is its own beginning would lead back here.
            found[side][token] = rest
            piece = known[side][token]
            begun = known[1 - side].encode(piece)[:1] if piece else []
            found[side][token] = next((assign(1 - side, first) for first in begun), rest)
        return found[side][token]

    members = [torch.tensor([assign(side, t) for t in range(sizes[side])]) for side in (0, 1)]
    others = any(bool((of == rest).any()) for of in members)
    return Classes(members[0], members[1], rest + others)
