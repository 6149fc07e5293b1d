"""Rollouts as text that is coloured by where the two models part."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from oprd.runs.lines import is_number
from oprd.runs.samples import Sample

# Shades from agreement (0) to the furthest apart.
SHADES = 6
# Tokens of all rollouts of a report, and of one of them at least and at most.
BUDGET, LEAST, MOST = 9_000, 80, 500
# Rollouts of the first and of the last step.
ROLLOUTS = 2


@dataclass(frozen=True)
class Piece:
    """A token as it is shown.

    Attributes:
        text: of it.
        kind: `"p0"` to `"p5"` by how far the models part, `"plain"` where that is not known,
            `"tool"` where it was returned by a tool, `"free"` where it was not supervised.
        cosine: where it was compared.
    """

    text: str
    kind: str
    cosine: float | None


@dataclass(frozen=True)
class Coloured:
    """A rollout; `left_out` tokens of its end are not shown.

    Attributes:
        counts: tokens that were supervised, that the student wrote, and all of them.
    """

    step: int
    prompt: str
    pieces: list[Piece]
    left_out: int
    counts: tuple[int, int, int]


@dataclass(frozen=True)
class Scale:
    """Cosines at which the first shade ends and the last one begins."""

    high: float
    low: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Scale | None":
        """From the middle of the samples' cosines to their lowest; None where they have none."""
        cosines = sorted(c for s in samples for c in s.cosine if is_number(c) and c is not None)
        if not cosines:
            return None
        high, low = (cosines[int(share * (len(cosines) - 1))] for share in (0.6, 0.04))
        return cls(high, min(low, high - 1e-6))

    def shade(self, cosine: float) -> int:
        """From 0, the models agree, to `SHADES` − 1."""
        share = (self.high - cosine) / (self.high - self.low)
        return min(SHADES - 1, max(0, math.ceil(share * (SHADES - 1))))


def coloured(samples: Sequence[Sample], reports: int) -> tuple[list[Coloured], Scale | None]:
    """The first rollouts of the first and of the last step that was kept.

    Args:
        samples: of a run.
        reports: how many runs share the budget of tokens.
    """
    steps = sorted({sample.step for sample in samples})
    chosen = [
        sample
        for step in dict.fromkeys((steps[0], steps[-1]) if steps else ())
        for sample in [each for each in samples if each.step == step][:ROLLOUTS]
    ]
    limit = min(MOST, max(LEAST, BUDGET // max(1, reports * 2 * ROLLOUTS)))
    scale = Scale.of(chosen)
    return [_coloured(sample, scale, limit) for sample in chosen], scale


def _coloured(sample: Sample, scale: Scale | None, limit: int) -> Coloured:
    rows = zip(sample.tokens, sample.written, sample.supervised, sample.cosine, strict=True)
    pieces = [_piece(scale, *row) for row in rows]
    counts = sum(map(bool, sample.supervised)), sum(map(bool, sample.written)), len(pieces)
    left_out = max(0, len(pieces) - limit)
    return Coloured(sample.step, sample.prompt, pieces[:limit], left_out, counts)


def _piece(
    scale: Scale | None, text: str, written: bool, supervised: bool, cosine: object
) -> Piece:
    if not written:
        return Piece(text, "tool", None)
    if scale is None or not is_number(cosine):
        return Piece(text, "plain" if supervised else "free", None)
    value = float(cosine)  # pyright: ignore[reportArgumentType]
    return Piece(text, f"p{scale.shade(value)}", value)
