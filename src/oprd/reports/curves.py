"""A run's curves as one picture, from its metrics file."""

from pathlib import Path
from typing import Any

from oprd.reports.figure import new_figure
from oprd.runs.metrics import read_metrics

PANELS = (
    ("loss", "representation loss"),
    ("rep_cosine", "cosine of student and teacher states"),
    ("completions/mean_length", "response length (tokens)"),
    ("grad_norm", "gradient norm before clipping"),
)


def plot_curves(run: Path, output: Path) -> None:
    """Draw loss, cosine overall and per layer, length and gradient norm by step into a PNG.

    Raises:
        FileNotFoundError: `run` is not a run folder.
        ImportError: matplotlib is not installed.
    """
    lines = read_metrics(run)
    figure = new_figure(10, 6.5)
    for axes, (key, title) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        if key == "rep_cosine":
            for name in sorted({name for line in lines for name in line if name.startswith(key)}):
                _draw(axes, lines, name, color="0.8", linewidth=0.8)
        _draw(axes, lines, key, color="C0", linewidth=1.8)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        axes.spines[["top", "right"]].set_visible(False)
    cosine = figure.axes[1]
    cosine.plot([], [], color="C0", label="mean of layers")
    cosine.plot([], [], color="0.8", label="each layer")
    cosine.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(output, dpi=120)


def _draw(axes: Any, lines: list[dict[str, Any]], key: str, **style: Any) -> None:
    points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
    axes.plot(*zip(*points, strict=True), **style) if points else None
