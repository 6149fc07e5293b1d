"""Rollouts that a run keeps while it trains, and how far the two models part in them.

`samples.jsonl` holds one rollout a line:

    step       the update that they were trained on in, from 1
    prompt     as the student read it
    tokens     of the response, as text: joined they are the response
    written    per token, whether the student wrote it; what a tool returned it did not
    supervised per token, whether the representation loss compared the states that predict it
    cosine     per token, of student and teacher there, mean over layers; null where not compared

`positions.jsonl` holds one step a line, of all rollouts of the main process in it: `position`, the
first of a group of response tokens, from 1, and for each group the mean `cosine` and the `count` of
tokens.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from oprd.runs.lines import append_line, begin_lines, is_number, read_lines

SAMPLES, POSITIONS = "samples.jsonl", "positions.jsonl"


@dataclass(frozen=True)
class Sample:
    """One rollout; see the module.

    Raises:
        ValueError: there is not one entry a token.
    """

    step: int
    prompt: str
    tokens: Sequence[str]
    written: Sequence[bool]
    supervised: Sequence[bool]
    cosine: Sequence[float | None]

    def __post_init__(self) -> None:
        parts = self.tokens, self.written, self.supervised, self.cosine
        if not all(isinstance(part, list | tuple) for part in parts):
            raise ValueError("tokens, written, supervised and cosine must be lists.")
        if len({len(part) for part in parts}) > 1:
            raise ValueError("tokens, written, supervised and cosine must be equally many.")
        if not isinstance(self.prompt, str) or not all(isinstance(t, str) for t in self.tokens):
            raise ValueError("prompt and tokens must be text.")

    @property
    def response(self) -> str:
        """Its text."""
        return "".join(self.tokens)


@dataclass(frozen=True)
class PositionCurve:
    """The cosine by position in the response, of a step; see the module."""

    step: int
    position: Sequence[int]
    cosine: Sequence[float]
    count: Sequence[int]

    def __post_init__(self) -> None:
        parts = self.position, self.cosine, self.count
        if not all(isinstance(part, list | tuple) for part in parts):
            raise ValueError("position, cosine and count must be lists.")
        if len({len(part) for part in parts}) > 1:
            raise ValueError("position, cosine and count must be equally many.")
        if not all(is_number(value) for part in parts for value in part):
            raise ValueError("position, cosine and count must be numbers.")


def begin_samples(folder: Path, step: int) -> None:
    """Keep what a run wrote up to the step from which it goes on; a new one begins with none."""
    for name in (SAMPLES, POSITIONS):
        begin_lines(folder / name, step)


def append_samples(folder: Path, samples: Sequence[Sample], curve: PositionCurve | None) -> None:
    """Add the rollouts of a step, and its curve where states were compared."""
    for sample in samples:
        append_line(folder / SAMPLES, sample.step, asdict(sample))
    if curve is not None:
        append_line(folder / POSITIONS, curve.step, asdict(curve))


def read_samples(folder: Path) -> list[Sample]:
    """The rollouts that can be read, none where none were kept."""
    return _read(folder / SAMPLES, Sample)


def read_positions(folder: Path) -> list[PositionCurve]:
    """The curves that can be read, none where there are none."""
    return _read(folder / POSITIONS, PositionCurve)


def _read(file: Path, kind: type[Any]) -> list[Any]:
    found = []
    for line in read_lines(file):
        try:
            found.append(kind(**{name: line[name] for name in kind.__dataclass_fields__}))
        except (KeyError, ValueError):
            continue
    return found
