"""Fig. 7: the sampled-token loss with the representation loss beside it, at weights 0, 1 and 10."""

from lab.comparison import Comparison
from lab.items.report import report_comparison
from lab.runs import Run

TITLE = "Fig. 7: top-1 with the representation loss at weights 0, 1, 10"
METHODS = ("top-1", "top-1 + OPRD", "top-1 + 10 OPRD")
QUICK = {"steps": 150, "rates": (1e-3,), "seeds": (0,)}


def comparison(quick: bool) -> Comparison:
    """The item's only one."""
    return Comparison("sums", METHODS, **(QUICK if quick else {}))


def plan(quick: bool) -> list[Run]:
    """The runs that are needed."""
    return comparison(quick).plan()


def report(quick: bool) -> list[str]:
    """Write the findings and a picture, and return their table."""
    return report_comparison(comparison(quick), "weights", quick)
