"""The students that the theory items look at: untouched, and taught by either kind of loss."""

from dataclasses import replace
from pathlib import Path

from lab import accuracy
from lab.comparison import Comparison
from lab.pairs import PAIRS
from lab.results import committed_rates
from lab.runs import Run

PAIR = "sums"
UNTOUCHED = "untouched"
TAUGHT = ("OPRD", "reverse KL")
# Of the accuracy on the same pair, whose runs these are, each method at its own best rate; the
# claim keeps both in quick ones.
COMPARISON = replace(accuracy.SUMS, methods=TAUGHT, claims=(TAUGHT,))


def taught(quick: bool) -> list[Run]:
    """The runs that are needed."""
    return _comparison(quick).plan()


def students(quick: bool) -> dict[str, list[Path]]:
    """Folders of models by what taught them, one a seed.

    Raises:
        ValueError: their runs are not finished.
    """
    comparison = _comparison(quick)
    runs = {method: comparison.best(method) for method in comparison.methods}
    return {
        UNTOUCHED: [PAIRS[PAIR].student.path()],
        **{method: [run.folder for run in of] for method, of in runs.items()},
    }


def _comparison(quick: bool) -> Comparison:
    return COMPARISON.quick(committed_rates(f"accuracy-{PAIR}")) if quick else COMPARISON
