"""The names of bases: what a bridge's directions are chosen by, in all pairs or pair by pair.

`"pca"`, `"rrr"` and `"fisher"` take any pair of layers. `"heads"` reads both LM heads, which stand
on the last states alone; below it another basis may serve, as in `"pca+heads"`.
"""

from collections.abc import Sequence
from typing import Literal, cast, get_args

from oprd.core.layers import LayerPair

Basis = Literal["pca", "rrr", "fisher"]
BASES: tuple[Basis, ...] = get_args(Basis)
HEADS = "heads"
PAIR_BASES: tuple[str, ...] = (*BASES, HEADS)
CHOICES: tuple[str, ...] = (*PAIR_BASES, *(f"{basis}+{HEADS}" for basis in BASES))
# Whose rollouts a fit reads (the paper's).
PROMPTS = 2000
# Heads alone are not fitted: rows say how well they carry, and what weighs tokens in some metrics.
PROMPTS_OF_HEADS = 128


def usual_prompts(basis: str) -> int:
    """How many prompts' rollouts a fit reads."""
    return PROMPTS_OF_HEADS if basis == HEADS else PROMPTS


def reads_heads(basis: str) -> bool:
    """Whether the last pair is read off the LM heads."""
    return basis == HEADS or basis.endswith(f"+{HEADS}")


def below_heads(basis: str) -> Basis | None:
    """The basis of the pairs that are not; None where there are none."""
    return None if basis == HEADS else cast(Basis, basis.removesuffix(f"+{HEADS}"))


def last_pair(pairs: Sequence[LayerPair]) -> LayerPair:
    """The pair of the deepest student layer."""
    return max(pairs, key=lambda pair: pair.student)


def by_pair(basis: str, pairs: Sequence[LayerPair]) -> tuple[str, ...]:
    """The basis of each pair.

    Raises:
        ValueError: the basis is unknown, or `"heads"` would have to serve a lower pair.
    """
    if basis not in CHOICES:
        raise ValueError(f"basis must be one of {', '.join(CHOICES)}, got {basis!r}.")
    lower = below_heads(basis)
    if lower is None and len(pairs) > 1:
        below = [pair.student for pair in pairs if pair != last_pair(pairs)]
        raise ValueError(
            f"basis={basis!r} is for the last states, which the LM heads read, and student layers "
            f"{below} lie below: set layers='last', or a basis for them, such as 'pca+heads'."
        )
    if not reads_heads(basis):
        return (basis,) * len(pairs)
    last = last_pair(pairs)
    return tuple(HEADS if pair == last else str(lower) for pair in pairs)


def joined(bases: Sequence[str]) -> str:
    """What `by_pair` was given, from what it gave."""
    return "+".join(sorted(dict.fromkeys(bases), key=PAIR_BASES.index))


def check_last(pair: LayerPair, depths: tuple[int, int]) -> None:
    """Refuse LM heads for states that they do not read.

    Args:
        pair: that is to be read off the heads.
        depths: layers of the student and of the teacher.

    Raises:
        ValueError: it is not the last of both models.
    """
    if tuple(pair) != depths:
        raise ValueError(
            f"basis='heads' is for the last layers of both models, {depths[0]} with {depths[1]}, "
            f"which their LM heads read, and the last pair here is {pair.student} with "
            f"{pair.teacher} (student with teacher): include it in layers, or take another basis."
        )
