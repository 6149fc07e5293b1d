"""Methods beside one another: each at its own best rate of one grid, over several seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lab.pairs import PAIRS
from lab.results import Estimate, accuracy, model_accuracy
from lab.runs import METHODS, Run

RATES = (2e-4, 5e-4, 1e-3, 2e-3)
SEEDS = (0, 1, 2)
# The share of the gap between student and teacher after which a method counts as there.
REACHED = 0.9


@dataclass(frozen=True)
class Comparison:
    """Methods on one pair.

    Attributes:
        pair: a name of `lab.pairs.PAIRS`.
        methods: names of `lab.runs.METHODS`.
        steps: of every run.
        rates: the grid of learning rates.
        seeds: the first one alone decides each method's rate.
        options: settings of every run beside its method's.

    Raises:
        ValueError: a method is unknown.
    """

    pair: str
    methods: tuple[str, ...]
    steps: int = 300
    rates: tuple[float, ...] = RATES
    seeds: tuple[int, ...] = SEEDS
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if unknown := set(self.methods) - set(METHODS):
            raise ValueError(f"the lab has no method {', '.join(sorted(unknown))}.")

    def at(self, quick: bool) -> "Comparison":
        """The comparison itself, or at the smallest setting that still shows the effect."""
        return replace(self, steps=150, rates=(1e-3,), seeds=self.seeds[:1]) if quick else self

    def run(self, method: str, rate: float, seed: int) -> Run:
        """One run of the comparison."""
        return Run(self.pair, method, rate, seed, steps=self.steps, options=self.options)

    def plan(self) -> list[Run]:
        """The grid on the first seed, then the other seeds where a method's rate is known."""
        grid = [self.run(m, rate, self.seeds[0]) for rate in self.rates for m in self.methods]
        known = [m for m in self.methods if self._chosen(m) is not None]
        return list(dict.fromkeys(grid + [run for m in known for run in self.best(m)]))

    def best(self, method: str) -> list[Run]:
        """A method's runs at its best rate, one a seed.

        Raises:
            ValueError: its grid is not finished.
        """
        rate = self._chosen(method)
        if rate is None:
            raise ValueError(f"the grid of {method!r} on {self.pair!r} is not finished.")
        return [self.run(method, rate, seed) for seed in self.seeds]

    def _chosen(self, method: str) -> float | None:
        """The rate with the highest mean accuracy over the second half of the evaluations.

        The end alone is one noisy number, and the whole curve rewards speed.
        """
        runs = [self.run(method, rate, self.seeds[0]) for rate in self.rates]
        if not all(run.finished for run in runs):
            return None
        return max(runs, key=late_accuracy).learning_rate

    def findings(self) -> dict[str, Any]:
        """Everything that a table of the comparison says, and the curves behind it."""
        pair = PAIRS[self.pair]
        teacher, student = model_accuracy(pair.teacher), model_accuracy(pair.student)
        target = student + REACHED * (teacher - student)
        return {
            "pair": self.pair,
            "teacher": teacher,
            "student": student,
            "target": target,
            "steps": self.steps,
            "rates": self.rates,
            "seeds": self.seeds,
            "methods": {m: self._method(m, target) for m in self.methods},
        }

    def _method(self, method: str, target: float) -> dict[str, Any]:
        runs = self.best(method)
        curves = [accuracy(run) for run in runs]
        grid = {rate: self.run(method, rate, self.seeds[0]) for rate in self.rates}
        return {
            "learning_rate": runs[0].learning_rate,
            "settings": runs[0].settings,
            "final": vars(Estimate.of(c.values[-1] for c in curves)),
            "area": vars(Estimate.of(c.area for c in curves)),
            "steps_to_target": [c.steps_to(target) for c in curves],
            "grid": {f"{rate:g}": late_accuracy(run) for rate, run in grid.items()},
            "curves": [
                {"seed": run.seed, "steps": c.steps.tolist(), "accuracy": c.values.tolist()}
                for run, c in zip(runs, curves, strict=True)
            ],
        }


def late_accuracy(run: Run) -> float:
    """The mean accuracy over the evaluations of a run's second half."""
    reached = accuracy(run)
    return float(reached.values[reached.steps >= run.steps / 2].mean())


def table(found: dict[str, Any]) -> list[str]:
    """The findings of a comparison as lines of a Markdown table."""
    lines = [
        f"{found['pair']}: teacher {found['teacher']:.1%}, student {found['student']:.1%}; "
        f"{found['steps']} steps, seeds {', '.join(map(str, found['seeds']))}",
        "",
        f"| method | rate | final accuracy | steps to {found['target']:.1%} | area |",
        "|---|---|---|---|---|",
    ]
    for name, row in found["methods"].items():
        final, area = Estimate(**row["final"]), Estimate(**row["area"])
        cells = (name, f"{row['learning_rate']:g}", final.percent(), _steps(row), area.percent())
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _steps(row: dict[str, Any]) -> str:
    """The median over seeds; a seed that never got there took more than any number."""
    taken: Sequence[float] = [np.inf if s is None else s for s in row["steps_to_target"]]
    median = float(np.median(taken))
    return f"{median:.0f}" if np.isfinite(median) else "not reached"
