"""The students that the theory items look at: untouched, and taught by either kind of loss."""

from dataclasses import dataclass, replace
from pathlib import Path

from lab import accuracy
from lab.comparison import Comparison
from lab.pairs import PAIRS
from lab.results import committed_rates
from lab.runs import Run

UNTOUCHED = "untouched"
TAUGHT = ("OPRD", "reverse KL")


@dataclass(frozen=True)
class Students:
    """What an item's runs made of its student, each method at its own best rate.

    Attributes:
        item: of `lab.accuracy.ITEMS`, whose runs these are.
    """

    item: str

    @property
    def pair(self) -> str:
        """A name of `lab.pairs.PAIRS`."""
        return accuracy.ITEMS[self.item].pair

    def taught(self, quick: bool) -> list[Run]:
        """The runs that are needed."""
        return self._comparison(quick).plan()

    def folders(self, quick: bool) -> dict[str, list[Path]]:
        """Of models, by what taught them, one a seed.

        Raises:
            ValueError: their runs are not finished.
        """
        comparison = self._comparison(quick)
        runs = {method: comparison.best(method) for method in comparison.methods}
        return {
            UNTOUCHED: [PAIRS[self.pair].student.path()],
            **{method: [run.folder for run in of] for method, of in runs.items()},
        }

    def _comparison(self, quick: bool) -> Comparison:
        # The claim keeps both in quick runs.
        whole = replace(accuracy.ITEMS[self.item], methods=TAUGHT, claims=(TAUGHT,))
        return whole.quick(committed_rates(self.item)) if quick else whole


SUMS, REINFORCED = Students("accuracy-sums"), Students("accuracy-sums-reinforced")
