"""Tables 4 and 5: through a bridge, in the output space, and both, between unlike models."""

from lab import figures
from lab.comparison import Comparison, table
from lab.results import accuracy, write
from lab.runs import Run

TITLE = "Tables 4, 5: bridge, output-space distillation, and both, at other depth and width"
PAIR = "sums, other shape"
METHODS = (
    "Bridge",
    "Bridge, fisher",
    "reverse KL",
    "Bridge + reverse KL",
    "Bridge, then reverse KL",
)
FULL = {"steps": 200, "rates": (1e-3, 2e-3, 5e-4)}
QUICK = {"steps": 100, "rates": (1e-3,), "seeds": (0,)}


def comparison(quick: bool) -> Comparison:
    """The item's only one."""
    return Comparison(PAIR, METHODS, **(QUICK if quick else FULL))


def plan(quick: bool) -> list[Run]:
    """The runs that are needed."""
    return comparison(quick).plan()


def report(quick: bool) -> list[str]:
    """Write the findings, and return their table."""
    name = f"bridges{'-quick' if quick else ''}"
    found = comparison(quick).findings()
    write(name, found)
    figure, (axis,) = figures.panels(1, 1)
    curves = {m: [accuracy(run) for run in comparison(quick).best(m)] for m in METHODS}
    figures.draw_curves(axis, curves, "accuracy on sums", figures.color_of(list(METHODS)))
    axis.axhline(found["teacher"], color="0.5", linestyle=":", linewidth=1)
    axis.legend(frameon=False, fontsize=7)
    figures.save(figure, name)
    return table(found)
