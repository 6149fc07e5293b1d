"""Which pictures a report has, each with its name and what it shows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oprd.reports.figure import styled, to_png
from oprd.reports.panels import PANELS
from oprd.reports.plots import (
    draw_cost,
    draw_layers,
    draw_panel,
    draw_positions,
    draw_task,
    letter,
    tasks,
)
from oprd.runs.folder import RunFolder
from oprd.text import escaped


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: of its file, made of letters, digits and hyphens.
        title: what it shows, in our own words.
        about: what a reader should know.
        figure: of matplotlib.
    """

    name: str
    title: str
    about: str
    figure: Any


def of_runs(runs: Sequence[RunFolder], *, legend: bool) -> Iterator[Picture]:
    """Pictures in which all runs stand beside each other.

    Args:
        runs: in the order of their letters.
        legend: whether they are named in the picture.
    """
    for number, (task, measure) in enumerate(tasks(runs)):
        if (figure := draw_task(task, measure, runs, legend=legend)) is not None:
            about = f"{escaped(task)}: bands are 95% intervals with problems as the unit."
            yield Picture(f"task-{number + 1}", "A task's figure by step", about, figure)
    for panel in PANELS:
        if (figure := draw_panel(panel, runs, legend=legend)) is not None:
            pale = panel.pale and len(runs) > 1 and not legend
            about = panel.about + (f" Pale: {panel.pale}." if pale else "")
            yield Picture(panel.name, f"{panel.title} by step", about.strip(), figure)
    if (figure := draw_cost(runs)) is not None:
        yield Picture("cost", "Seconds of a step by phase", "", figure)


def of_run(run: RunFolder) -> Iterator[Picture]:
    """Pictures of one run alone."""
    if (figure := draw_layers(run)) is not None:
        about = "Cosine of student and teacher states by student layer and step."
        yield Picture("layers", "Cosine by layer and step", about, figure)
    if (figure := draw_positions(run)) is not None:
        about = "Means over the rollouts of a step in the main process."
        yield Picture("positions", "Cosine by position in the response", about, figure)


def write_pngs(runs: Sequence[RunFolder], folder: Path) -> list[Path]:
    """Every picture as a file for a paper.

    Raises:
        ImportError: matplotlib is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with styled():
        named = [(picture.name, picture) for picture in of_runs(runs, legend=True)]
        for number, run in enumerate(runs):
            end = f"-{letter(number)}" if len(runs) > 1 else ""
            named += [(picture.name + end, picture) for picture in of_run(run)]
        for name, picture in named:
            written.append(folder / f"{name}.png")
            to_png(picture.figure, written[-1])
    return written
