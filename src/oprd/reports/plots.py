"""The pictures of a report: what runs logged, as lines, a heat map, a curve over positions, bars.

Each takes what `oprd.runs.folder` read and returns a figure, or None where nothing was logged.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from oprd.extras import require
from oprd.reports.figure import (
    GRID,
    INK,
    MUTED,
    PAPER,
    SERIES,
    SIZE,
    label,
    line_style,
    new_figure,
)
from oprd.reports.panels import Panel
from oprd.reports.series import Series, logged, matrix, series
from oprd.runs.card import FIGURE
from oprd.runs.folder import PHASES, RunFolder

PHASE_NAMES = {
    "seconds/rollout": "student writes",
    "seconds/teacher": "teacher reads",
    "seconds/student": "student is updated",
}
LAYER = "rep_cosine/layer_"
# A line of so few points shows each.
FEW = 40
# Of the second quantity of several runs, beside the first one's lines.
PALE = 0.45
# Runs that a picture names; more are named by the page alone.
NAMED = 12


def draw_panel(panel: Panel, runs: Sequence[RunFolder], *, legend: bool) -> Any | None:
    """Lines by step, one a run or one a quantity.

    Args:
        panel: what is drawn.
        runs: whose.
        legend: whether several runs are named in the picture.
    """
    drawn = [
        (run, curve, found)
        for run, each in enumerate(runs)
        for curve, (key, _) in enumerate(panel.curves)
        if len(found := series(each.metrics, key))
    ]
    if not drawn:
        return None
    figure = new_figure(*SIZE)
    axes = figure.subplots()
    several = len(runs) > 1
    for run, curve, found in drawn:
        style = line_style(run if several else curve)
        if several and curve:
            style["alpha"] = PALE
        name = panel.curves[curve][1]
        text = f"{letter(run)} {label(runs[run].name, 28)}" if several else name
        line(axes, found, style, "" if several and curve else text, band=not several)
    _scale(axes, panel, [found for _, _, found in drawn])
    if several and any(curve for _, curve, _ in drawn):
        axes.plot([], [], color=MUTED, alpha=PALE, label=f"pale: {panel.pale}")
    if (several and legend and len(runs) <= NAMED) or (not several and len(drawn) > 1):
        axes.legend(loc="best")
    return finished(figure, axes, panel.title, "step", panel.unit)


def draw_task(task: str, measure: str, runs: Sequence[RunFolder], *, legend: bool) -> Any | None:
    """A task's figure by step with its 95% interval over problems, in percent."""
    key = f"eval/{task}/{measure}"
    figure = new_figure(*SIZE)
    axes = figure.subplots()
    there = False
    for number, run in enumerate(runs):
        value, low, high = (series(run.metrics, f"{key}{end}") for end in ("", "_low", "_high"))
        if not len(value):
            continue
        there = True
        style = line_style(number)
        text = f"{letter(number)} {label(run.name, 28)}" if len(runs) > 1 else ""
        axes.plot(value.steps, 100 * value.values, marker="o", markersize=3, label=text, **style)
        if len(low) == len(high) == len(value):
            axes.fill_between(
                value.steps, 100 * low.values, 100 * high.values, color=style["color"],
                alpha=0.13, linewidth=0,
            )  # fmt: skip
    if not there:
        return None
    axes.set_ylim(bottom=0)
    if legend and 1 < len(runs) <= NAMED:
        axes.legend(loc="best")
    return finished(figure, axes, label(task, 36), "step", f"{measure} (%)")


def tasks(runs: Sequence[RunFolder]) -> list[tuple[str, str]]:
    """Tasks and figures that any run logged, in their order."""
    keys = dict.fromkeys(key for run in runs for line in run.metrics for key in line)
    return [(found["task"], found["name"]) for key in keys if (found := FIGURE.fullmatch(key))]


def draw_layers(run: RunFolder) -> Any | None:
    """The cosine of each compared layer by step."""
    names, steps, values = matrix(run.metrics, LAYER)
    if not names or len(steps) < 2:
        return None
    figure = new_figure(*SIZE)
    axes = figure.subplots()
    axes.grid(False)
    low, high = np.nanpercentile(values, 2), np.nanmax(values)
    image = axes.imshow(
        values,
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        cmap="cividis",
        vmin=low,
        vmax=max(high, low + 1e-6),
        extent=(steps[0], steps[-1], -0.5, len(names) - 0.5),
    )
    shown = np.unique(np.linspace(0, len(names) - 1, min(len(names), 7)).round().astype(int))
    axes.set_yticks(shown, [label(names[place].lstrip("0"), 8) for place in shown])
    bar = figure.colorbar(image, ax=axes, extend="min", pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label("cosine")
    return finished(figure, axes, "Agreement by layer", "step", "student layer")


def draw_positions(run: RunFolder) -> Any | None:
    """The cosine by position in the response, at the first and the last step that was kept."""
    curves = [curve for curve in run.positions if len(curve.position)]
    if not curves:
        return None
    figure = new_figure(*SIZE)
    axes = figure.subplots()
    chosen = [(curves[0], MUTED, (0, (4, 1.6)))] if len(curves) > 1 else []
    shown = [*chosen, (curves[-1], SERIES[0], "-")]
    few = max(len(curve.position) for curve, *_ in shown) <= FEW
    marker = {"marker": "o", "markersize": 2.5} if few else {}
    for curve, color, dashes in shown:
        text = f"step {curve.step}"
        axes.plot(curve.position, curve.cosine, color=color, linestyle=dashes, label=text, **marker)
    axes.legend(loc="best")
    return finished(figure, axes, "Agreement by position", "response token", "cosine")


def draw_cost(runs: Sequence[RunFolder]) -> Any | None:
    """What a step takes: writing rollouts, reading by the teacher, the student's update."""
    means = [[_mean(run, phase) for phase in PHASES] for run in runs]
    shown = [(number, mean) for number, mean in enumerate(means) if None not in mean]
    if not shown:
        return None
    figure = new_figure(SIZE[0], 1.25 + 0.26 * len(shown))
    axes = figure.subplots()
    axes.grid(axis="y", visible=False)
    names = [letter(number) for number, _ in shown] if len(runs) > 1 else []
    left = np.zeros(len(shown))
    hatches = ("", "////", "")
    colors = (SERIES[0], SERIES[4], SERIES[2])
    for place, phase in enumerate(PHASES):
        widths = np.array([mean[place] for _, mean in shown], dtype=float)
        axes.barh(
            np.arange(len(shown)), widths, left=left, height=0.62, color=colors[place],
            hatch=hatches[place], edgecolor=PAPER, linewidth=0.8,
            label=PHASE_NAMES[phase],
        )  # fmt: skip
        left += widths
    axes.set_yticks(np.arange(len(names)), names)
    axes.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=3)
    return finished(figure, axes, "Time of a step", "seconds, mean over steps", "")


def letter(number: int) -> str:
    """What a run is called in pictures: A, B, … Z, A2 and so on."""
    cycle, place = divmod(number, 26)
    return chr(ord("A") + place) + (str(cycle + 1) if cycle else "")


def line(axes: Any, found: Series, style: dict[str, Any], text: str, *, band: bool) -> None:
    """A series as a line, with its extremes where steps were grouped and `band` is set."""
    if band and found.is_thinned:
        axes.fill_between(
            found.steps, found.low, found.high, color=style["color"], alpha=0.16, linewidth=0
        )
    marker = {"marker": "o", "markersize": 2.5} if len(found) <= FEW else {}
    axes.plot(found.steps, found.values, label=text or None, **style, **marker)


def finished(figure: Any, axes: Any, title: str, x: str, y: str) -> Any:
    """The figure with its words."""
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if x == "step":
        axes.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    axes.tick_params(colors=MUTED, labelcolor=INK)
    axes.spines[["left", "bottom"]].set_color(GRID)
    return figure


def _scale(axes: Any, panel: Panel, found: Sequence[Series]) -> None:
    low = min(float(one.low.min()) for one in found)
    high = max(float(one.high.max()) for one in found)
    if low == high and low > 0:
        # Around a constant matplotlib would show its last digits.
        axes.set_ylim(0.5 * low, 1.5 * low)
    if panel.log and low > 0 and high / low > 20:
        axes.set_yscale("log")
        # Matplotlib's own labels are formulas, which names of strangers must not be.
        ticker: Any = require("matplotlib.ticker", "report", "a picture")
        few = high / low < 1000
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if few else (1,)))
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def _mean(run: RunFolder, phase: str) -> float | None:
    found = logged(run.metrics, phase)[:, 1]
    return float(found.mean()) if len(found) else None
