"""An item that compares methods."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from lab import figures
from lab.comparison import Comparison
from lab.items.item import Item
from lab.results import (
    Curve,
    accuracy,
    accuracy_by_seconds,
    committed_rates,
    plain_steps,
    short,
    write,
)
from lab.runs import Run
from lab.table import reached, table
from lab.variants.live_heads import COSINE, FITTED, LIVE

ENTROPY_GAP = "entropy_gap"
# Of a step, by the name under which runs log them.
PARTS = {
    "a step": "step_time",
    "its rollouts": "seconds/rollout",
    "teacher": "seconds/teacher",
    "student": "seconds/student",
}
# The paper's diagnostics, by the name under which runs log them, the gap aside.
DIAGNOSTICS = {
    "completions/mean_length": "response length (tokens)",
    "rep_cosine": "cosine of the states, mean of layers",
    "diagnostics/policy_gradient_loss": "policy-gradient loss",
    "diagnostics/reverse_kl": "KL(student || teacher), nats",
    ENTROPY_GAP: "entropy, student minus teacher, nats",
}
HEADS_PANELS = {
    "rep_cosine": "cosine in the space of the loss",
    "diagnostics/reverse_kl": "KL(student || teacher), nats",
}
LIVE_PANELS = {
    FITTED: "D² through the head as fitted, nats",
    LIVE: "D² through the head as it is, nats",
    COSINE: "cosine of their gradients",
}
GRADIENT_NORM = {"grad_norm": "norm of the gradient before clipping"}
LOGARITHMIC = GRADIENT_NORM
# Of a vocabulary of a few dozen tokens it says nothing.
OVERLAP = {"diagnostics/top16_overlap": "overlap of the 16 likeliest tokens"}


@dataclass(frozen=True)
class Compared(Item):
    """One comparison, as a table and a picture of accuracy by step.

    Attributes:
        full: the comparison.
        panels: what else the picture shows by step: logged names with their titles.
        timed: whether accuracy is shown by seconds of training, too.
    """

    full: Comparison
    panels: Mapping[str, str] | None = None
    timed: bool = False
    report_minutes: ClassVar[float] = 0.2

    def plan(self, quick: bool) -> list[Run]:
        """The runs that are needed."""
        return self._comparison(quick).plan()

    def table(self, found: Mapping[str, Any]) -> list[str]:
        """The findings as lines of Markdown."""
        return table(found) + (["", *seconds_table(found)] if self.timed else [])

    def verdicts(self, found: Mapping[str, Any]) -> dict[str, bool]:
        """Which of the comparison's claims hold."""
        return self.full.verdicts(found)

    def report(self, quick: bool) -> None:
        """Write the findings and a picture."""
        comparison = self._comparison(quick)
        found = comparison.findings()
        runs = {method: comparison.best(method) for method in comparison.methods}
        found |= self.besides(comparison)
        if self.timed:
            found["seconds"] = {method: seconds(of, found["target"]) for method, of in runs.items()}
        panels = self.panels or {}
        logged = {name: _logged(runs, name) for name in panels}
        found["logged"] = {
            name: {method: [_plain(curve) for curve in of] for method, of in by_method.items()}
            for name, by_method in logged.items()
        }
        write(self.name, found, quick)
        crowded = len(runs) > figures.LEGEND_INSIDE
        shown = 1 + self.timed + len(panels) + crowded
        rows = 1 if shown <= 3 else 2
        figure, axes = figures.panels(rows, math.ceil(shown / rows))
        curves = {method: [accuracy(run) for run in of] for method, of in runs.items()}
        teacher = found["teacher"]["accuracy"]
        legend = axes.pop() if crowded else axes[0]
        figures.draw_accuracy(axes[0], curves, comparison.pair, teacher, legend)
        if self.timed:
            figures.draw_curves(
                axes.pop(1),
                {method: [accuracy_by_seconds(run) for run in of] for method, of in runs.items()},
                "accuracy by time",
                "seconds of training",
            )
        for axis, (name, title) in zip(axes[1:], panels.items(), strict=False):
            figures.draw_curves(axis, logged[name], title)
            if name in LOGARITHMIC:
                axis.set_yscale("log")
        figures.save(figure, self.name, quick)

    def besides(self, comparison: Comparison) -> dict[str, Any]:
        """What else is found, by name."""
        return {}

    def _comparison(self, quick: bool) -> Comparison:
        if not quick:
            return self.full
        return self.full.quick(committed_rates(self.name))


def seconds(runs: Sequence[Run], target: float) -> dict[str, Any]:
    """Medians over the steps of some runs, and when each of these reached the target."""
    return {
        **{
            part: float(np.median(np.concatenate([plain_steps(run, name).values for run in runs])))
            for part, name in PARTS.items()
        },
        "training": [float(accuracy_by_seconds(run).steps[-1]) for run in runs],
        "to_target": [accuracy_by_seconds(run).steps_to(target) for run in runs],
    }


def seconds_table(found: Mapping[str, Any]) -> list[str]:
    """Seconds by method, as lines of a Markdown table."""
    head = ["seconds", *PARTS, "training, median", f"to {found['target']:.1%}, median"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for method, row in found["seconds"].items():
        cells = [f"{row[part]:.1f}" for part in PARTS]
        cells += [f"{np.median(row['training']):.0f}", reached(row["to_target"])]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def _plain(curve: Curve) -> dict[str, list[float]]:
    return {"steps": curve.steps.tolist(), "values": short(curve.values)}


def _logged(runs: Mapping[str, Sequence[Run]], name: str) -> dict[str, list[Curve]]:
    """None of a method that does not log it: unequal widths have no cosine without a bridge.

    Raises:
        KeyError: some runs of a method log it and others do not, or no method does.
    """

    def curves(of: Sequence[Run]) -> list[Curve]:
        lacks = name != ENTROPY_GAP and not any(name in line for line in of[0].metrics())
        return [] if lacks else [_curve(run, name) for run in of]

    found = {method: curves(of) for method, of in runs.items()}
    if not any(found.values()):
        raise KeyError(f"no run logged {name!r}.")
    return found


def _curve(run: Run, name: str) -> Curve:
    if name != ENTROPY_GAP:
        return Curve.of(run, name)
    student = Curve.of(run, "diagnostics/student_entropy")
    teacher = Curve.of(run, "diagnostics/teacher_entropy")
    return Curve(student.steps, student.values - teacher.values)
