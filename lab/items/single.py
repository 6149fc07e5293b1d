"""An item of one comparison."""

from dataclasses import dataclass

from lab import figures
from lab.comparison import Comparison, table
from lab.results import accuracy, write
from lab.runs import Run


@dataclass(frozen=True)
class Single:
    """One comparison, as a table and a picture of accuracy by step.

    Attributes:
        name: of its files in `lab/results`.
        title: what of the paper it is.
        full: the comparison.
    """

    name: str
    title: str
    full: Comparison

    def plan(self, quick: bool) -> list[Run]:
        """The runs that are needed."""
        return self.full.at(quick).plan()

    def report(self, quick: bool) -> list[str]:
        """Write the findings and a picture, and return their table."""
        comparison = self.full.at(quick)
        name = f"{self.name}-quick" if quick else self.name
        found = comparison.findings()
        lines = table(found)
        write(name, found, lines)
        figure, (axis,) = figures.panels(1, 1)
        curves = {m: [accuracy(run) for run in comparison.best(m)] for m in comparison.methods}
        figures.draw_accuracy(axis, curves, comparison.pair, found["teacher"])
        figures.save(figure, name)
        return lines
