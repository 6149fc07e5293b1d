"""What runs left, as curves and figures, and how the lab's scripts write down what they found."""

import importlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from lab.models import CACHE
from lab.pairs import PAIRS, Moment
from lab.runs import EVAL_SAMPLES, Run
from oprd.analysis.machine import machine
from oprd.evaluation.evaluate import evaluate_model
from oprd.evaluation.tasks.load import load_task
from oprd.training.callbacks import versions

RESULTS = Path(__file__).parent / "results"
MODEL_SAMPLES = 8


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
        if self.low is None or self.high is None:
            return f"{self.mean:.1%}"
        return f"{self.mean:.1%} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def accuracy(run: Run) -> Curve:
    """Accuracy on the held-out problems by step, step 0 included."""
    return Curve.of(run, f"eval/{PAIRS[run.pair].task}/avg@{EVAL_SAMPLES}")


def model_accuracy(moment: Moment) -> float:
    """Accuracy of a student or teacher of the lab on the held-out problems."""
    task = load_task(f"python:{moment.recipe.module}")
    evaluation = evaluate_model(
        str(moment.path()),
        None,
        task,
        samples=MODEL_SAMPLES,
        max_new_tokens=importlib.import_module(moment.recipe.module).LONGEST_RESPONSE,
        output=CACHE / "evaluations" / moment.recipe.folder.name / f"{moment.step}.jsonl",
        batch_size=512,
        progress=False,
    )
    return evaluation.summary.average.value


def write(name: str, found: dict[str, Any], table: Sequence[str]) -> Path:
    """Write an item's findings, and their table, with versions and machine."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    record = {"versions": versions(), "machine": machine(), **found, "table": list(table)}
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path
