"""False progress in what a run has logged: alignment gets better, and what the run is for worse.

A bridge can be pulled at with a rising cosine while accuracy collapses. A curve that stands for
what a run is for is compared with one of alignment over a window of its own measurements: the two
part where every measurement of the newer half is worse than every one of the older half, and
alignment's newer half likewise better. By chance alone, of 2n measurements in any order, one in
(2n choose n) looks so: 1 in 70 of eight.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from oprd.runs.card import FIGURE

# What is logged of alignment, and which way is better.
LOSS = "loss"
ALIGNMENT = {"rep_cosine": 1, "loss/representation": -1, LOSS: -1}
DIVERGENCE = "diagnostics/reverse_kl"


class Alarm(NamedTuple):
    """Two curves that part.

    Attributes:
        steps: at which the second was measured.
        better: the curve of alignment.
        better_values: of it, at each of the steps the mean of what was logged since the last.
        worse: the curve of what the run is for.
        worse_values: of it.
    """

    steps: list[int]
    better: str
    better_values: list[float]
    worse: str
    worse_values: list[float]

    def __str__(self) -> str:
        """Both curves' values."""
        return (
            f"from step {self.steps[0]} to {self.steps[-1]} {self.better} got better "
            f"({_listed(self.better_values)}) while {self.worse} got worse "
            f"({_listed(self.worse_values)})"
        )


class _Point(NamedTuple):
    step: int
    value: float
    alignment: dict[str, float]


class Watch:
    """The curves of a run, and whether they part; it knows of nothing but what is logged.

    Args:
        window: measurements that are looked at, an even number.
        figure: of a task, such as "aime24/avg@4"; by default avg@n of every task.
        loss: whether the loss means the same at every step of a stage.
    """

    def __init__(self, window: int, figure: str | None = None, *, loss: bool = True) -> None:
        self._window, self._figure = window, figure
        self._alignment = {n: s for n, s in ALIGNMENT.items() if loss or n != LOSS}
        self._stage: object = None
        self._logged: dict[str, list[float]] = {}
        # How many of them were logged when a goal was measured last.
        self._marks: dict[str, dict[str, int]] = {}
        self._points: dict[str, deque[_Point]] = {}

    def add(self, step: int, logs: Mapping[str, Any]) -> Alarm | None:
        """Take in what was logged at a step; an alarm where it makes two curves part."""
        if "stage" in logs and logs["stage"] != self._stage:
            # Another objective has curves of its own.
            self._logged, self._marks, self._points, self._stage = {}, {}, {}, logs["stage"]
        for name in self._alignment.keys() & logs.keys():
            self._logged.setdefault(name, []).append(logs[name])
        found = None
        for name in filter(self._is_goal, logs):
            marks = self._marks.get(name, {})
            since = {n: values[marks.get(n, 0) :] for n, values in self._logged.items()}
            means = {n: fmean(values) for n, values in since.items() if values}
            # A student that has not trained since the last measurement is no new one.
            if means:
                points = self._points.setdefault(name, deque(maxlen=self._window))
                points.append(_Point(step, logs[name], means))
                self._marks[name] = {n: len(values) for n, values in self._logged.items()}
                found = found or self._parted(name)
        return found

    def _is_goal(self, name: str) -> bool:
        if self._figure is not None and name.startswith("eval/"):
            return name == f"eval/{self._figure}"
        return name == DIVERGENCE or FIGURE.fullmatch(name) is not None

    def _parted(self, name: str) -> Alarm | None:
        points = self._points[name]
        if len(points) < self._window:
            return None
        values = [point.value for point in points]
        if not separated(values, 1 if name == DIVERGENCE else -1):
            return None
        for aligned, sign in self._alignment.items():
            means = [point.alignment[aligned] for point in points if aligned in point.alignment]
            if len(means) == len(points) and separated(means, sign):
                return Alarm([point.step for point in points], aligned, means, name, values)
        return None


def separated(values: Sequence[float], sign: int) -> bool:
    """Whether all of the newer half are above, with a sign of −1 below, all of the older half."""
    half = len(values) // 2
    older, newer = ([sign * value for value in part] for part in (values[:half], values[half:]))
    return all(map(math.isfinite, values)) and max(older) < min(newer)


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
