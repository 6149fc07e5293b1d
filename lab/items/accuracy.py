"""Table 2, Figs. 1, 4, 5, 6, 9-11: OPRD beside output-space distillation, step by step."""

from lab import figures
from lab.comparison import Comparison, table
from lab.results import Curve, accuracy, write
from lab.runs import Run

TITLE = "Table 2, Figs. 1, 4, 5, 6, 9-11: accuracy and diagnostics by step"
METHODS = (
    "OPRD",
    "OPRD, unit length",
    "reverse KL",
    "forward KL",
    "top-4 of the paper's runs",
    "top-4 of Eq. 5",
    "top-1",
)
TASKS = ("sums", "sorting")
QUICK = {"steps": 150, "rates": (1e-3,), "seeds": (0,)}
# By the name under which runs log them.
PANELS = {
    "completions/mean_length": "response length (tokens)",
    "rep_cosine": "cosine of the states, mean of layers",
    "diagnostics/policy_gradient_loss": "policy-gradient loss",
    "diagnostics/reverse_kl": "KL(student || teacher), nats",
    "entropy_gap": "entropy, student minus teacher, nats",
}


def comparisons(quick: bool) -> list[Comparison]:
    """One a task."""
    return [Comparison(task, METHODS, **(QUICK if quick else {})) for task in TASKS]


def plan(quick: bool) -> list[Run]:
    """The runs that are needed, those of the first task first."""
    return [run for comparison in comparisons(quick) for run in comparison.plan()]


def report(quick: bool) -> list[str]:
    """Write the findings of each task, and return their tables."""
    lines = []
    for comparison in comparisons(quick):
        name = f"accuracy-{comparison.pair}{'-quick' if quick else ''}"
        found = comparison.findings()
        of_task = table(found)
        write(name, found, of_task)
        draw(comparison, found["teacher"], name)
        lines += [*of_task, ""]
    return lines


def draw(comparison: Comparison, teacher: float, name: str) -> None:
    """Accuracy and diagnostics by step, a line a method."""
    figure, axes = figures.panels(2, 3)
    colors = figures.color_of(list(METHODS))
    runs = {method: comparison.best(method) for method in METHODS}
    curves = {method: [accuracy(run) for run in of] for method, of in runs.items()}
    figures.draw_curves(axes[0], curves, f"accuracy on {comparison.pair}", colors)
    axes[0].axhline(teacher, color="0.5", linestyle=":", linewidth=1)
    axes[0].legend(frameon=False, fontsize=7)
    for axis, (key, title) in zip(axes[1:], PANELS.items(), strict=True):
        logged = {method: [_curve(run, key) for run in of] for method, of in runs.items()}
        figures.draw_curves(axis, logged, title, colors)
    figures.save(figure, name)


def _curve(run: Run, key: str) -> Curve:
    if key != "entropy_gap":
        return Curve.of(run, key)
    student, teacher = (Curve.of(run, f"diagnostics/{who}_entropy") for who in _BOTH)
    return Curve(student.steps, student.values - teacher.values)


_BOTH = ("student", "teacher")
