"""Accuracy and the paper's diagnostics by step, on several tasks."""

from dataclasses import dataclass

from lab import figures
from lab.comparison import Comparison, table
from lab.results import Curve, accuracy, write
from lab.runs import Run

ENTROPY_GAP = "entropy_gap"
# By the name under which runs log them, the gap aside.
PANELS = {
    "completions/mean_length": "response length (tokens)",
    "rep_cosine": "cosine of the states, mean of layers",
    "diagnostics/policy_gradient_loss": "policy-gradient loss",
    "diagnostics/reverse_kl": "KL(student || teacher), nats",
    ENTROPY_GAP: "entropy, student minus teacher, nats",
}


@dataclass(frozen=True)
class Accuracy:
    """The same methods on several tasks.

    Attributes:
        name: its files in `lab/results` begin with it.
        title: what of the paper it is.
        full: the comparisons, one a task.
    """

    name: str
    title: str
    full: tuple[Comparison, ...]

    def plan(self, quick: bool) -> list[Run]:
        """The runs that are needed, those of the first task first."""
        return [run for comparison in self.full for run in comparison.at(quick).plan()]

    def report(self, quick: bool) -> list[str]:
        """Write the findings of each task, and return their tables."""
        lines = []
        for comparison in (each.at(quick) for each in self.full):
            name = f"{self.name}-{comparison.pair}{'-quick' if quick else ''}"
            found = comparison.findings()
            of_task = table(found)
            write(name, found, of_task)
            _draw(comparison, found["teacher"], name)
            lines += [*of_task, ""]
        return lines


def _draw(comparison: Comparison, teacher: float, name: str) -> None:
    figure, axes = figures.panels(2, 3)
    runs = {method: comparison.best(method) for method in comparison.methods}
    curves = {method: [accuracy(run) for run in of] for method, of in runs.items()}
    figures.draw_accuracy(axes[0], curves, comparison.pair, teacher)
    for axis, (key, title) in zip(axes[1:], PANELS.items(), strict=True):
        logged = {method: [_curve(run, key) for run in of] for method, of in runs.items()}
        figures.draw_curves(axis, logged, title)
    figures.save(figure, name)


def _curve(run: Run, key: str) -> Curve:
    if key != ENTROPY_GAP:
        return Curve.of(run, key)
    student = Curve.of(run, "diagnostics/student_entropy")
    teacher = Curve.of(run, "diagnostics/teacher_entropy")
    return Curve(student.steps, student.values - teacher.values)
