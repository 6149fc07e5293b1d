"""An item that compares methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab import figures
from lab.comparison import Comparison, table
from lab.results import Curve, accuracy, committed_rates, write
from lab.runs import Run

ENTROPY_GAP = "entropy_gap"
# The paper's diagnostics, by the name under which runs log them, the gap aside.
DIAGNOSTICS = {
    "completions/mean_length": "response length (tokens)",
    "rep_cosine": "cosine of the states, mean of layers",
    "diagnostics/policy_gradient_loss": "policy-gradient loss",
    "diagnostics/reverse_kl": "KL(student || teacher), nats",
    ENTROPY_GAP: "entropy, student minus teacher, nats",
}


@dataclass(frozen=True)
class Compared:
    """One comparison, as a table and a picture of accuracy by step.

    Attributes:
        name: of its files in `lab/results`.
        title: what of the paper it is.
        full: the comparison.
        panels: what else the picture shows by step: logged names with their titles.
    """

    name: str
    title: str
    full: Comparison
    panels: Mapping[str, str] | None = None

    def plan(self, quick: bool) -> list[Run]:
        """The runs that are needed."""
        return self._comparison(quick).plan()

    def report(self, quick: bool) -> list[str]:
        """Write the findings and a picture, and return their table."""
        comparison = self._comparison(quick)
        found = comparison.findings()
        lines = table(found)
        write(self.name, found, lines, quick)
        panels = self.panels or {}
        figure, axes = figures.panels(2 if panels else 1, (len(panels) + 2) // 2)
        runs = {method: comparison.best(method) for method in comparison.methods}
        curves = {method: [accuracy(run) for run in of] for method, of in runs.items()}
        teacher = found["teacher"]["accuracy"]
        figures.draw_accuracy(axes[0], curves, comparison.pair, teacher)
        for axis, (name, title) in zip(axes[1:], panels.items(), strict=False):
            figures.draw_curves(axis, _logged(runs, name), title)
        figures.save(figure, self.name, quick)
        return lines

    def _comparison(self, quick: bool) -> Comparison:
        if not quick:
            return self.full
        return self.full.quick(committed_rates(self.name))


def _logged(runs: Mapping[str, Sequence[Run]], name: str) -> dict[str, list[Curve]]:
    return {method: [_curve(run, name) for run in of] for method, of in runs.items()}


def _curve(run: Run, name: str) -> Curve:
    if name != ENTROPY_GAP:
        return Curve.of(run, name)
    student = Curve.of(run, "diagnostics/student_entropy")
    teacher = Curve.of(run, "diagnostics/teacher_entropy")
    return Curve(student.steps, student.values - teacher.values)
