"""The factors of the objective's terms (Eq. 7), step by step: each stays, or hands over to another.

Steps are counted from 0 within a run, or within a stage of it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from oprd.runs.limits import Limit, check_limits
from oprd.runs.shares import in_steps
from oprd.values import check_choice, check_number, check_positive

SHAPES = ("linear", "cosine")
# Beyond it a loss is beyond float32.
LARGEST_WEIGHT = 1e9
_FORM = '{"from": 1, "to": 0, "steps": 100}'
_DEFAULTS = {"start": 0, "shape": "linear"}
_NEEDED = ("from", "to", "steps")
_LIMITS = {
    "from": Limit(0, LARGEST_WEIGHT, "[)"),
    "to": Limit(0, LARGEST_WEIGHT, "[)"),
    "start": Limit(0, steps=True),
    "steps": Limit(0, ends="(]", steps=True),
}


def usual_weight(scale: str, *, of_logits: bool) -> float:
    """The factor of the representation loss where none is given.

    At unit length it brings the gradients of the first steps to the clipping norm, so that more
    rates are good. What is read off LM heads is the distance of logits already.
    """
    return 10.0 if scale == "unit" and not of_logits else 1.0


@dataclass(frozen=True)
class Weight:
    """A factor that is `first` up to the step `start`, and `last` from the step `end` on.

    Attributes:
        first: where it begins.
        last: where it ends; the same for a factor that stays.
        start: steps before it begins to change.
        end: after how many steps it has changed.
        shape: how it goes from one to the other: "linear", or "cosine" for half a wave, which
            begins and ends slowly.
    """

    first: float
    last: float
    start: int = 0
    end: int = 0
    shape: str = "linear"

    @classmethod
    def of(cls, name: str, given: float | Mapping[str, Any], length: int | None) -> Self:
        """What `checked_weight` returned, in a run or a stage of so many steps.

        Raises:
            ValueError: it changes, and the length is not known or too short.
        """
        if not isinstance(given, Mapping):
            return cls(given, given)
        if length is None:
            raise ValueError(f"{name} changes, which needs a run of known length: set max_steps.")
        start = in_steps(given["start"], length)
        end = start + in_steps(given["steps"], length, least=1)
        if end > length:
            raise ValueError(
                f"{name} changes until step {end}, and there are {length} steps: let its start "
                f"and steps add up to {length} at most."
            )
        return cls(given["from"], given["to"], start, end, given["shape"])

    @property
    def changes(self) -> bool:
        """Whether it is another at some step."""
        return self.first != self.last

    @property
    def ever(self) -> bool:
        """Whether it is above zero at some step."""
        return max(self.first, self.last) > 0

    @property
    def always(self) -> bool:
        """Whether it is above zero at every step."""
        return min(self.first, self.last) > 0

    def at(self, step: int) -> float:
        """Its value at a step; between `start` and `end` above zero."""
        if step <= self.start or not self.changes:
            return self.first
        if step >= self.end:
            return self.last
        share = (step - self.start) / (self.end - self.start)
        if self.shape == "linear":
            return (1 - share) * self.first + share * self.last
        # Squares of sine and cosine, because 1 − cos is zero at the first of very many steps.
        angle = share * math.pi / 2
        return math.cos(angle) ** 2 * self.first + math.sin(angle) ** 2 * self.last


class Weights(NamedTuple):
    """The factors of both terms.

    Attributes:
        representation: µ.
        output: of the output-space loss; zero where there is none.
    """

    representation: Weight
    output: Weight

    @property
    def change(self) -> bool:
        """Whether one of them changes."""
        return self.representation.changes or self.output.changes

    def check(self, length: int | None) -> None:
        """Refuse, with a ValueError, a step at which both are zero, of so many steps."""
        # Each is zero, if at all, up to its start and from its end on.
        edges = {0, (length or 1) - 1, *(w.start for w in self), *(w.end for w in self)}
        for step in sorted(edges):
            if (length is None or step < length) and not any(w.at(step) for w in self):
                raise ValueError(
                    f"at step {step + 1} representation_weight is 0 and "
                    f"{'output_weight too' if self.output.ever else 'there is no output_loss'}, so "
                    "that nothing is learned: let one begin before the other ends."
                )


def checked_weight(
    name: str, given: object, *, zero: bool, form: str = _FORM, instead: str = ""
) -> float | dict[str, Any]:
    """A factor as Python, YAML or, in JSON, a command line gives it.

    Args:
        name: of the setting.
        given: a number, or a mapping of `from`, `to`, `steps` and, if not their defaults, `start`
            and `shape`; text of either.
        zero: whether it may be zero throughout.
        form: how it is written, in messages.
        instead: what to do where it does not change, in messages; by default to give the number.

    Returns:
        the number, or the mapping with all its keys.

    Raises:
        ValueError: it is neither, a key or a shape is unknown, or a number is out of bounds.
    """
    if isinstance(given, str):
        given = _read(name, given, form)
    if not isinstance(given, Mapping):
        number = check_number(name, given)
        if not (zero and number == 0):
            check_positive(name, number, LARGEST_WEIGHT)
        return number
    keys = (*_NEEDED, *_DEFAULTS)
    for key in given:
        check_choice(f"a key of {name}", key, keys)
    if missing := [key for key in _NEEDED if key not in given]:
        raise ValueError(f"{name} needs {', '.join(missing)}: write it as {form}.")
    found = {key: {**_DEFAULTS, **given}[key] for key in keys}
    check_limits(found, _LIMITS, f"{name}: ")
    check_choice(f"{name}: shape", found["shape"], SHAPES)
    if found["from"] == found["to"]:
        raise ValueError(
            f"{name} goes from {found['from']:g} to the same: {instead or 'give the number'}."
        )
    return found


def _read(name: str, text: str, form: str) -> Any:
    for kind in (float, json.loads):
        try:
            return kind(text)
        except ValueError:
            continue
    raise ValueError(f"{name} must be a number or such as {form}, got {text!r}.")
