"""What runs left, as curves and figures, and how the lab's scripts write down what they found."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from lab.pairs import PAIRS
from lab.runs import Run
from lab.scores import write_whole
from oprd.analysis.machine import machine
from oprd.runs.record import versions

RESULTS = Path(__file__).parent / "results"
_NUMBERS = re.compile(r"\[[\d\s.,eE+-]*\]")


@dataclass(frozen=True)
class Curve:
    """One figure of a run by step."""

    steps: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, run: Run, name: str) -> "Curve":
        """The values that a run logged under a name; steps without one are left out.

        Raises:
            KeyError: it logged none.
        """
        points = [(line["step"], line[name]) for line in run.metrics() if name in line]
        if not points:
            raise KeyError(f"{run.folder.name} logged no {name!r}.")
        steps, values = zip(*points, strict=True)
        return cls(np.array(steps), np.array(values, dtype=float))

    @property
    def area(self) -> float:
        """The mean height over the steps."""
        return float(np.trapezoid(self.values, self.steps) / (self.steps[-1] - self.steps[0]))

    def steps_to(self, target: float) -> float | None:
        """The step at which the target is first reached, on a line between evaluations, or None."""
        above = np.flatnonzero(self.values >= target)
        if len(above) == 0:
            return None
        last = int(above[0])
        if last == 0:
            return float(self.steps[0])
        (x0, x1), (y0, y1) = self.steps[last - 1 : last + 1], self.values[last - 1 : last + 1]
        return float(x0 + (target - y0) / (y1 - y0) * (x1 - x0))


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and the ends of its 95% t-interval; one seed has no interval."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> "Estimate":
        """Estimate the mean of what the values are drawn from."""
        data = np.array(list(values))
        mean = float(data.mean())
        if len(data) < 2:
            return cls(mean, None, None)
        half = float(stats.sem(data) * stats.t.ppf(0.975, len(data) - 1))
        return cls(mean, mean - half, mean + half)

    def percent(self) -> str:
        """As text, for shares between 0 and 1."""
        return f"{self.mean:.1%}{self._interval('.1f')}"

    def points(self) -> str:
        """As text, for differences of shares, with their sign."""
        return f"{100 * self.mean:+.1f}{self._interval('+.1f')}"

    def plain(self) -> str:
        """As text, for differences of numbers, with their sign."""
        return f"{self.mean:+.2f}{self._interval('+.2f', 1)}"

    def _interval(self, form: str, scale: float = 100) -> str:
        if self.low is None or self.high is None:
            return ""
        return f" [{scale * self.low:{form}}, {scale * self.high:{form}}]"


def accuracy(run: Run) -> Curve:
    """Accuracy on the held-out problems by step, step 0 included."""
    return Curve.of(run, f"eval/{PAIRS[run.pair].task}/avg@{run.samples['curve']}")


def plain_steps(run: Run, name: str) -> Curve:
    """What a run logged under a name at the steps that measured no diagnostics."""
    diagnosed = {line["step"] for line in run.metrics() if "diagnostics/reverse_kl" in line}
    logged = Curve.of(run, name)
    plain = ~np.isin(logged.steps, list(diagnosed))
    return Curve(logged.steps[plain], logged.values[plain])


def accuracy_by_seconds(run: Run) -> Curve:
    """Accuracy on the held-out problems by seconds of training.

    Without those of evaluations; a step that measured diagnostics, for which both LM heads are
    read, counts as the median of those that did not.
    """
    by_step, seconds, plain = (
        accuracy(run),
        Curve.of(run, "step_time"),
        plain_steps(run, "step_time"),
    )
    took = np.where(np.isin(seconds.steps, plain.steps), seconds.values, np.median(plain.values))
    elapsed = np.concatenate([[0.0], np.cumsum(took)])
    return Curve(elapsed[by_step.steps], by_step.values)


def result_file(name: str, quick: bool) -> Path:
    """Where an item's results belong; quick ones are kept apart from those that are committed."""
    folder = RESULTS / "quick" if quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def read(name: str, quick: bool) -> dict[str, Any]:
    """An item's results, or nothing where there are none yet."""
    path = result_file(f"{name}.json", quick)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def committed_rates(name: str) -> dict[str, float]:
    """The rates that a whole comparison found best, by method; none where it has no results yet."""
    methods = read(name, quick=False).get("methods", {})
    return {method: row["learning_rate"] for method, row in methods.items()}


def differences(quick: Mapping[str, bool], whole: Mapping[str, bool]) -> list[str]:
    """The claims that whole results settled and quick ones do not find again."""
    return [claim for claim, holds in whole.items() if quick.get(claim) != holds]


def write(name: str, found: dict[str, Any], quick: bool) -> Path:
    """Write an item's findings, with versions and machine."""
    path = result_file(f"{name}.json", quick)
    record = {"versions": versions(), "machine": machine(), **found}
    write_whole(path, as_text(record))
    return path


def short(values: Iterable[float]) -> list[float]:
    """Numbers to five digits, which is more than any of them is known to."""
    return [float(f"{value:.5g}") for value in values]


def as_text(record: Mapping[str, Any]) -> str:
    """JSON to be read and compared: a line for each value, and for each list of numbers."""
    text = json.dumps(record, indent=1, ensure_ascii=False)
    return _NUMBERS.sub(lambda found: " ".join(found[0].split()), text) + "\n"
