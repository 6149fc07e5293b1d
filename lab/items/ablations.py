"""Ablations of OPRD: layers, positions, reduction, prefix gradients, updates a rollout."""

from lab.comparison import Comparison
from lab.items.report import report_comparison
from lab.runs import Run

TITLE = "Ablations: layers, positions, reduction, prefix gradients, updates a rollout"
METHODS = (
    "OPRD",
    "OPRD, unit length",
    "last layer",
    "even layers",
    "odd layers",
    "first 5 tokens",
    "last 5 tokens",
    "last 5 tokens, constant prefix",
    "constant prompt",
    "last token",
    "mean over tokens",
    "2 updates a rollout",
    "4 updates a rollout",
)
FULL = {"rates": (1e-3, 2e-3)}
QUICK = {"steps": 150, "rates": (1e-3,), "seeds": (0,)}


def comparison(quick: bool) -> Comparison:
    """The item's only one."""
    return Comparison("sums", METHODS, **(QUICK if quick else FULL))


def plan(quick: bool) -> list[Run]:
    """The runs that are needed."""
    return comparison(quick).plan()


def report(quick: bool) -> list[str]:
    """Write the findings and a picture, and return their table."""
    return report_comparison(comparison(quick), "ablations", quick)
