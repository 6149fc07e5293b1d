"""Pictures of the lab."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.results import RESULTS, Curve

# A colour per method, the same in every picture.
COLORS = [
    "#1b5e9e", "#d1495b", "#2e8b57", "#8e5ea2", "#e08e0b", "#5f6b76", "#13a3a3", "#9c6b30",
    "#b5338a", "#4c7d1f", "#000000", "#7aa6d8", "#e79aa4",
]  # fmt: skip


def panels(rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    """A figure of several axes without frames."""
    figure = Figure(figsize=(4.2 * columns, 3.3 * rows), layout="constrained")
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
    return figure, list(axes.flat)


def draw_curves(
    axes: Axes, curves: Mapping[str, list[Curve]], title: str, colors: Mapping[str, str]
) -> None:
    """The mean of each method's curves, and the span of its seeds."""
    for name, seeds in curves.items():
        values = np.array([curve.values for curve in seeds])
        steps = seeds[0].steps
        axes.plot(steps, values.mean(axis=0), color=colors[name], linewidth=1.6, label=name)
        axes.fill_between(
            steps, values.min(axis=0), values.max(axis=0), color=colors[name], alpha=0.15, lw=0
        )
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("step")


def color_of(names: list[str]) -> dict[str, str]:
    """Colours by name."""
    return dict(zip(names, COLORS, strict=False))


def save(figure: Figure, name: str) -> Path:
    """Write a picture beside the results."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.png"
    figure.savefig(path, dpi=110)
    return path
