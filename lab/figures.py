"""Pictures of the lab."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.results import Curve, result_file

# One for each of the methods of a picture, in their order.
COLORS = [
    "#1b5e9e", "#d1495b", "#2e8b57", "#8e5ea2", "#e08e0b", "#5f6b76", "#13a3a3", "#9c6b30",
    "#b5338a", "#4c7d1f", "#000000", "#7aa6d8", "#e79aa4", "#b8a900", "#6d1f1f", "#9ad29a",
]  # fmt: skip
# Of more methods than these a legend would cover the curves.
LEGEND_INSIDE = 8


def panels(rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of several axes without frames."""
    figure = Figure(figsize=(4.2 * columns, 3.3 * rows), layout="constrained")
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
    return figure, list(axes.flat)


def draw_curves(
    axes: Axes, curves: Mapping[str, Sequence[Curve]], title: str, unit: str = "step"
) -> None:
    """The mean of each method's curves, and the span of its seeds; a method keeps its colour.

    A method without curves is left out. Seeds have their points at the same steps; where these are
    seconds, at their means.
    """
    for color, (name, seeds) in zip(COLORS[: len(curves)], curves.items(), strict=True):
        if not seeds:
            continue
        values = np.array([curve.values for curve in seeds])
        steps = np.mean([curve.steps for curve in seeds], axis=0)
        axes.plot(steps, values.mean(axis=0), color=color, linewidth=1.6, label=name)
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(unit)


def draw_accuracy(
    axes: Axes, curves: Mapping[str, Sequence[Curve]], pair: str, teacher: float, legend: Axes
) -> None:
    """Accuracy by step with the teacher's as a line, and a legend there or on other axes."""
    draw_curves(axes, curves, f"accuracy on {pair}")
    axes.axhline(teacher, color="0.5", linestyle=":", linewidth=1)
    if legend is not axes:
        legend.set_axis_off()
    place = "best" if legend is axes else "center left"
    legend.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=7, loc=place)


def save(figure: Figure, name: str, quick: bool) -> Path:
    """Write a picture beside the results, which is whole or not there."""
    path = result_file(f"{name}.png", quick)
    unfinished = path.with_suffix(".part")
    figure.savefig(unfinished, format="png", dpi=110)
    return unfinished.replace(path)
