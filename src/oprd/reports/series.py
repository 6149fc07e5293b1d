"""Columns of a run's log, thinned to what a picture can show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oprd.runs.lines import is_number

# Points of a line: about one a pixel of a picture's width is more than an eye tells apart.
POINTS = 220


@dataclass(frozen=True)
class Series:
    """A quantity by step: means over groups of neighbouring steps, with their extremes.

    Attributes:
        steps: [n], of each group the mean step.
        values: [n], means.
        low: [n], the least of each group.
        high: [n], the greatest.
    """

    steps: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def is_thinned(self) -> bool:
        """Whether groups hold more than one value."""
        return bool((self.low < self.high).any())

    def __len__(self) -> int:
        return len(self.steps)


def logged(lines: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """[n, 2] steps and values under a key in the order of steps, those that are finite numbers."""
    found = [(line["step"], line[key]) for line in lines if is_number(line.get(key))]
    return np.array(sorted(found), dtype=float).reshape(-1, 2)


def series(lines: Sequence[Mapping[str, Any]], key: str, points: int = POINTS) -> Series:
    """What was logged under a key, of at most so many points.

    Args:
        lines: of a log, each with its `step`.
        key: of a quantity.
        points: how many groups at most.
    """
    table = logged(lines, key)
    steps, values = table.T
    if len(table) <= points:
        return Series(steps, values, values, values)
    starts = np.linspace(0, len(table), points, endpoint=False).astype(int)
    counts = np.diff(starts, append=len(table))
    return Series(
        np.add.reduceat(steps, starts) / counts,
        np.add.reduceat(values, starts) / counts,
        np.minimum.reduceat(values, starts),
        np.maximum.reduceat(values, starts),
    )


def matrix(
    lines: Sequence[Mapping[str, Any]], prefix: str, points: int = POINTS
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Quantities of one prefix side by side.

    Returns:
        their names without the prefix in order, [n] steps, and [names, n] values, NaN where there
        is none.
    """
    names = sorted({key for line in lines for key in line if key.startswith(prefix)})
    kept = [line for line in lines if any(is_number(line.get(name)) for name in names)]
    if not kept:
        return [], np.empty(0), np.empty((0, 0))
    table = np.array(
        [[line[n] if is_number(line.get(n)) else np.nan for n in names] for line in kept],
        dtype=float,
    )
    steps = np.array([line["step"] for line in kept], dtype=float)
    groups = np.array_split(np.arange(len(kept)), min(points, len(kept)))
    values = np.stack([_mean(table[group]) for group in groups], axis=1)
    return (
        [name.removeprefix(prefix) for name in names],
        np.array([steps[group].mean() for group in groups]),
        values,
    )


def _mean(rows: np.ndarray) -> np.ndarray:
    """Means of columns over what is there."""
    there = ~np.isnan(rows)
    counts = there.sum(axis=0)
    sums = np.where(there, rows, 0).sum(axis=0)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
