"""What advice rests on, of all that was measured of two models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from oprd.models.matching import RELATED_COSINE


class PairingFacts(NamedTuple):
    """One way to pair layers.

    Attributes:
        name: as `layer_pairing` takes it.
        pairs: the pairs themselves, as `layer_pairing` takes them.
        cka: mean over pairs.
        cosine: mean over pairs and positions; None where widths differ.
    """

    name: str
    pairs: str
    cka: float
    cosine: float | None


@dataclass(frozen=True)
class Facts:
    """What advice rests on.

    Attributes:
        widths: of the student's and the teacher's states.
        layers: the student's layers that were looked at, as `layers` takes them.
        positions: the supervised positions that were looked at.
        position_k: how many, for `first_k` and `last_k`.
        pairings: the one that was asked for, then others.
        cosines: the lowest and the highest of a pair; None where widths differ.
        ends: the last pair's cosine on the first and on the last quarter of responses; likewise.
        same_states: whether the models' states are the same to the last bit.
        sizes: the smallest and the largest root mean square of a paired teacher layer's states.
        head_problem: why output-space losses cannot read a head; None where they can.
        bridge_rank: what Theorem 3 advises; 0 for none.
        bridge_r_squared: of a bridge of that rank on held-out rows.
        cut: the share of responses that ended at the limit.
        limit: `max_completion_length`.
        own_tokens: whether the teacher reads tokens of its own.
        shared: the share of response tokens whose states meet.
    """

    widths: tuple[int, int]
    layers: str
    positions: str
    position_k: int
    pairings: tuple[PairingFacts, ...]
    cosines: tuple[float, float] | None
    ends: tuple[float, float] | None
    same_states: bool
    sizes: tuple[float, float]
    head_problem: str | None
    bridge_rank: int
    bridge_r_squared: float
    cut: float
    limit: int
    own_tokens: bool = False
    shared: float = 1.0

    @classmethod
    def of(
        cls, figures: Mapping[str, Any], *, layers: str, positions: str, position_k: int, limit: int
    ) -> "Facts":
        """What advice rests on of the figures of `measure_pair`.

        Args:
            figures: all of them.
            layers: as they were asked for, likewise the others.
            positions: see the attributes.
            position_k: likewise.
            limit: likewise.
        """
        heads = (figures["heads"]["student"], figures["heads"]["teacher"])
        problems = [head["problem"] for head in heads if "problem" in head]
        sizes = [layer["size"]["teacher"] for layer in figures["layers"]]
        rank = figures["bridge"]["advice"]["rank"]
        cosines = [pair["cosine"] for pair in figures["layers"]]
        ends = figures["ends"]
        return cls(
            widths=(figures["models"]["student"]["width"], figures["models"]["teacher"]["width"]),
            layers=layers,
            positions=positions,
            position_k=position_k,
            pairings=tuple(PairingFacts(**pairing) for pairing in figures["pairings"]),
            cosines=None if None in cosines else (min(cosines), max(cosines)),
            ends=ends and tuple(ends["quarters"]["last"]),
            same_states=figures["same_states"],
            sizes=(min(sizes), max(sizes)),
            head_problem=problems[0] if problems else None,
            bridge_rank=rank,
            bridge_r_squared=_r_squared(figures["bridge"]["curve"], rank),
            cut=figures["rollouts"]["cut"],
            limit=limit,
            own_tokens=figures["rows"]["own"],
            shared=figures["rows"]["shared"],
        )

    @property
    def cosine(self) -> float | None:
        """The highest mean cosine of a pairing; None where widths differ."""
        return max((p.cosine for p in self.pairings if p.cosine is not None), default=None)

    @property
    def related(self) -> bool:
        """Whether the student's states can be pulled to the teacher's as they are."""
        alike = self.cosine is not None and self.cosine >= RELATED_COSINE
        return alike and not self.same_states


def _r_squared(curve: Sequence[Mapping[str, float]], rank: int) -> float:
    """At the measured rank that is nearest."""
    return min(curve, key=lambda point: abs(point["rank"] - rank))["r_squared"]
