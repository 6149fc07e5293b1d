"""Methods beside one another: each at its own best rate of one grid, over several seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any, Literal

import numpy as np

from lab.differences import area_difference, end_difference
from lab.methods import METHODS
from lab.pairs import PAIRS
from lab.reinforced import Reinforced
from lab.results import Estimate, accuracy
from lab.runs import Run
from oprd.evaluation.intervals import compare

# The grid, and where it goes on if a method's best rate lies at its edge.
LADDER = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3)
RATES = (2e-4, 5e-4, 1e-3, 2e-3)
SEEDS = (0, 1, 2)
# Rates whose accuracy on the tuning problems differs by less are compared over all seeds.
NEAR = 0.01
# Steps of quick runs are a multiple of it, so that most methods have used up their rollouts.
WHOLE = 4
# The share of the gap between student and teacher after which a method counts as there.
REACHED = 0.9


@dataclass(frozen=True)
class Comparison:
    """Methods on one pair.

    Attributes:
        pair: a name of `lab.pairs.PAIRS`.
        methods: names of `lab.methods.METHODS`; the others are compared to the first.
        steps: of every run.
        rollouts: of every step.
        eval_every: steps between the points of a curve.
        rates: neighbours on the ladder. A single one holds for all methods; of several, each method
            has its own best one on the tuning problems, and the grid goes on where one that may be
            the best is its end.
        ladder: how far it goes on.
        seeds: the first one decides among rates that lie further apart than `NEAR`.
        options: settings of every run beside its method's.
        claims: pairs of methods of which the first is held to be the more accurate.
        by: when: over the whole way, by the area under its curve, or at the end.
        chosen: methods whose rate is decided, with the rate.
        grid_steps: of the runs that rates are chosen by, which then decide alone; None for `steps`.
        evaluated_quickly: see `lab.runs.Run.quick`; for methods whose rate is decided.
        quick_part: a quick run has one of so many parts of the steps.

    Raises:
        ValueError: a method is unknown, or rates are to be chosen on problems that are left out.
    """

    pair: str
    methods: tuple[str, ...]
    steps: int = 300
    rollouts: int = 64
    eval_every: int = 25
    rates: tuple[float, ...] = RATES
    ladder: tuple[float, ...] = LADDER
    seeds: tuple[int, ...] = SEEDS
    options: tuple[tuple[str, Any], ...] = ()
    claims: tuple[tuple[str, str], ...] = ()
    by: Literal["area", "end"] = "area"
    chosen: Mapping[str, float] = field(default_factory=dict, hash=False)
    grid_steps: int | None = None
    evaluated_quickly: bool = False
    quick_part: int = 5

    def __post_init__(self) -> None:
        if unknown := set(self.methods) - set(METHODS):
            raise ValueError(f"the lab has no method {', '.join(sorted(unknown))}.")
        if unknown := {name for claim in self.claims for name in claim} - set(self.methods):
            raise ValueError(f"claims about {', '.join(sorted(unknown))}, which is not compared.")
        if self.evaluated_quickly and len(self.rates) > 1 and set(self.chosen) != set(self.methods):
            raise ValueError("without tuning problems every method needs a rate that is chosen.")
        if self.grid_steps is not None and len(self.rates) == 1:
            raise ValueError("grid_steps is the length of a grid's runs, and there is one rate.")

    def quick(self, chosen: Mapping[str, float]) -> "Comparison":
        """The comparison at the smallest setting that still shows the effect.

        Of the methods those that claims are about; all where there are no claims.

        Args:
            chosen: the rates that the whole comparison found best; the middle of the grid stands in
                for those that are not known yet.
        """
        middle = self.rates[len(self.rates) // 2]
        claimed = {method for claim in self.claims for method in claim}
        methods = tuple(m for m in self.methods if m in claimed) if claimed else self.methods
        rates = {method: chosen.get(method, middle) for method in methods}
        # Divisible by all numbers of updates that a method makes of the same rollouts.
        written = ("updates_per_rollout", "rollouts_ahead")
        whole = math.lcm(
            WHOLE, *(math.prod(METHODS[m].get(name, 1) for name in written) for m in self.methods)
        )
        steps = max(whole, self.steps // self.quick_part // whole * whole)
        return replace(
            self,
            methods=methods,
            steps=steps,
            eval_every=min(self.eval_every, steps),
            seeds=self.seeds[:1],
            chosen=rates,
            grid_steps=None,
            evaluated_quickly=True,
        )

    def run(self, method: str, rate: float, seed: int, *, of_grid: bool = False) -> Run:
        """One run of the comparison, or of the grid that chooses rates for it."""
        shorter = self.grid_steps if of_grid else None
        return Run(
            self.pair,
            method,
            rate,
            seed,
            steps=shorter or self.steps,
            rollouts=self.rollouts,
            eval_every=shorter or self.eval_every,
            options=self.options,
            quick=self.evaluated_quickly,
        )

    def plan(self) -> list[Run]:
        """The runs known to be needed, one seed of every method first."""
        runs = [run for method in self.methods for run in self._needed(method)]
        return sorted(dict.fromkeys(runs), key=lambda run: self.seeds.index(run.seed))

    def best(self, method: str) -> list[Run]:
        """A method's runs at its best rate, one a seed.

        Raises:
            ValueError: its grid is not finished.
        """
        candidates = self._candidates(method)
        runs = {rate: self._seeds(method, rate) for rate in candidates}
        if not candidates or not all(run.finished for of in runs.values() for run in of):
            raise ValueError(f"the runs of {method!r} on {self.pair!r} are not finished.")
        if len(runs) == 1:
            return runs[candidates[0]]
        return max(runs.values(), key=lambda of: fmean(map(tuned, of)))

    def grid(self, method: str) -> dict[float, Run]:
        """The runs of the first seed by rate, as many as are known to be needed."""
        first = self.seeds[0]
        if (decided := self._decided(method)) is not None:
            return {decided: self.run(method, decided, first)}
        runs = {rate: self.run(method, rate, first, of_grid=True) for rate in self.rates}
        while len(runs) > 1 and all(run.finished for run in runs.values()):
            if not (beyond := self._beyond(runs)):
                break
            runs |= {rate: self.run(method, rate, first, of_grid=True) for rate in beyond}
        return dict(sorted(runs.items()))

    def _beyond(self, runs: Mapping[float, Run]) -> list[float]:
        """The rates of the ladder next to an end of those tried that may be the best."""
        ends = {min(runs): -1, max(runs): 1}
        places = [self.ladder.index(rate) + ends[rate] for rate in self._near(runs) if rate in ends]
        return [self.ladder[place] for place in places if 0 <= place < len(self.ladder)]

    def _near(self, runs: Mapping[float, Run]) -> list[float]:
        """The rates of finished runs that may be the best: of halves of runs it is one."""
        top = max(map(tuned, runs.values()))
        near = sorted(rate for rate, run in runs.items() if tuned(run) > top - NEAR)
        if self.grid_steps is None:
            return near
        return [next(rate for rate in near if tuned(runs[rate]) == top)]

    def _decided(self, method: str) -> float | None:
        """The rate of a method for which no grid is needed."""
        if METHODS[method].get("learning_rate") == "auto":
            return 0.0
        return self.chosen.get(method)

    def _candidates(self, method: str) -> list[float]:
        """The rates of a finished grid that may be the best; none where it is not finished."""
        runs = self.grid(method)
        if len(runs) == 1:
            return list(runs)
        return self._near(runs) if all(run.finished for run in runs.values()) else []

    def _seeds(self, method: str, rate: float) -> list[Run]:
        return [self.run(method, rate, seed) for seed in self.seeds]

    def _needed(self, method: str) -> list[Run]:
        later = [run for rate in self._candidates(method) for run in self._seeds(method, rate)]
        return [*self.grid(method).values(), *later]

    def findings(self) -> dict[str, Any]:
        """Everything that a table of the comparison says, and the curves behind it."""
        pair = PAIRS[self.pair]
        baseline = self.best(self.methods[0])
        samples = baseline[0].samples["reported"]
        teacher, student = (m.scores(samples)["reported"] for m in (pair.teacher, pair.student))
        target = student["accuracy"] + REACHED * (teacher["accuracy"] - student["accuracy"])
        runs = self.plan()
        machines = _different(run.machine for run in runs if run.machine)
        methods = {m: self._method(m, target, baseline) for m in self.methods}
        reinforced = pair.teacher if isinstance(pair.teacher, Reinforced) else None
        return {
            "pair": self.pair,
            "models": pair.key,
            # Of the whole training, which may go on beyond the step that teaches.
            **({"rewards": reinforced.rewards()} if reinforced else {}),
            "teacher": _without_problems(teacher),
            "student": _without_problems(student),
            "target": target,
            "steps": self.steps,
            "rollouts": self.rollouts,
            "samples": baseline[0].samples,
            "problems": {part: len(of["problems"]) for part, of in baseline[0].scores().items()},
            "seeds": self.seeds,
            "run_versions": _different(run.versions() for run in runs),
            **({"run_machines": machines} if machines else {}),
            "methods": methods,
        }

    def verdicts(self, found: Mapping[str, Any]) -> dict[str, bool]:
        """Which claims findings settle: all of one seed, and of several where they agree.

        That is where the 95% interval of the difference, paired by seed, is on one side of zero.
        """
        difference, when = {
            "area": (area_difference, "on the way"),
            "end": (end_difference, "at the end"),
        }[self.by]
        settled = {}
        for first, second in self.claims:
            more = difference(found, first, second)
            if more.low is None or more.high is None or not more.low <= 0 <= more.high:
                settled[f"{first} above {second} {when}"] = more.mean > 0
        return settled

    def _tuning(self, method: str) -> dict[str, float]:
        """Accuracy on the tuning problems by rate, where there was a choice."""
        grid = self.grid(method)
        return {f"{rate:g}": tuned(run) for rate, run in grid.items()} if len(grid) > 1 else {}

    def _method(self, method: str, target: float, baseline: list[Run]) -> dict[str, Any]:
        runs = self.best(method)
        curves = [accuracy(run) for run in runs]
        final = [reported(run) for run in runs]
        beside = [value - reported(run) for value, run in zip(final, baseline, strict=True)]
        scores = [run.scores()["reported"] for run in runs]
        return {
            "learning_rate": runs[0].learning_rate,
            "rates_found": [run.rate_found for run in runs if run.rate_found],
            "settings": {k: v for k, v in runs[0].all_settings.items() if k != "seed"},
            "final": vars(Estimate.of(final)),
            "difference": vars(Estimate.of(beside)),
            "by_problem": asdict(compare(by_problem(baseline), by_problem(runs)).difference),
            "steps_to_target": [curve.steps_to(target) for curve in curves],
            "tuning": self._tuning(method),
            "scores": [_without_problems(of) for of in scores],
            "curves": [
                {"seed": run.seed, "steps": c.steps.tolist(), "accuracy": c.values.tolist()}
                for run, c in zip(runs, curves, strict=True)
            ],
        }


def by_problem(runs: Sequence[Run]) -> np.ndarray:
    """The accuracy on each of the reported problems, a mean over runs."""
    return np.mean([run.scores()["reported"]["problems"] for run in runs], axis=0)


def _without_problems(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name != "problems"}


def tuned(run: Run) -> float:
    """A finished run's accuracy on the problems that rates are chosen on."""
    return run.scores()["tuning"]["accuracy"]


def reported(run: Run) -> float:
    """A finished run's accuracy on the problems that are reported."""
    return run.scores()["reported"]["accuracy"]


def _different(values: Any) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
