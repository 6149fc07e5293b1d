"""Tables 4 and 5: through a bridge, in the output space, and both, between unlike models."""

from lab.comparison import Comparison
from lab.items.report import report_comparison
from lab.runs import Run

TITLE = "Tables 4, 5: bridge, output-space distillation, and both, at other depth and width"
PAIR = "sums, other shape"
METHODS = ("Bridge", "reverse KL", "Bridge + reverse KL", "Bridge, then reverse KL")
FULL = {"steps": 200, "rates": (1e-3, 2e-3, 5e-4)}
QUICK = {"steps": 100, "rates": (1e-3,), "seeds": (0,)}


def comparison(quick: bool) -> Comparison:
    """The item's only one."""
    return Comparison(PAIR, METHODS, **(QUICK if quick else FULL))


def plan(quick: bool) -> list[Run]:
    """The runs that are needed."""
    return comparison(quick).plan()


def report(quick: bool) -> list[str]:
    """Write the findings and a picture, and return their table."""
    return report_comparison(comparison(quick), "bridges", quick)
