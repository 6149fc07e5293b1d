"""What items of one comparison leave behind."""

from lab import figures
from lab.comparison import Comparison, table
from lab.results import accuracy, write


def report_comparison(comparison: Comparison, name: str, quick: bool) -> list[str]:
    """Write the findings and a picture of accuracy by step, and return the table."""
    name += "-quick" if quick else ""
    found = comparison.findings()
    lines = table(found)
    write(name, found, lines)
    figure, (axis,) = figures.panels(1, 1)
    curves = {m: [accuracy(run) for run in comparison.best(m)] for m in comparison.methods}
    colors = figures.color_of(list(comparison.methods))
    figures.draw_curves(axis, curves, f"accuracy on {comparison.pair}", colors)
    axis.axhline(found["teacher"], color="0.5", linestyle=":", linewidth=1)
    axis.legend(frameon=False, fontsize=7)
    figures.save(figure, name)
    return lines
