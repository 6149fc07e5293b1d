"""What `oprd inspect` found, as one picture. No prompt and no name is in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from oprd.reports.bridge import draw_curve
from oprd.reports.figure import new_figure

Report = Mapping[str, Any]
ROLES = ("student", "teacher")
COLORS = {"student": "C0", "teacher": "C1"}


def plot_inspection(report: Report, output: Path) -> None:
    """Draw six panels into a PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(15, 8)
    axes = figure.subplots(2, 3).flat
    _draw_layers(axes[0], report["layers"])
    _draw_similarity(figure, axes[1], report)
    _draw_ends(axes[2], report["ends"])
    _draw_effective_ranks(axes[3], report["layers"])
    draw_curve(axes[4], report["bridge"])
    axes[4].set_title("a bridge by rank, mean over layers, held out", fontsize=10)
    _draw_heads(axes[5], report["heads"])
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(output, dpi=110)


def _draw_layers(axes: Any, layers: Sequence[Report]) -> None:
    numbers = [layer["student"] for layer in layers]
    ratios = [_ratio(layer["size"]) for layer in layers]
    lines = [("CKA", [layer["cka"] for layer in layers], "C2"), ("size ratio", ratios, "0.6")]
    if layers[0]["cosine"] is not None:
        lines.insert(0, ("cosine", [layer["cosine"] for layer in layers], "C0"))
    for name, values, color in lines:
        axes.plot(numbers, values, color=color, marker="o", markersize=3, label=name)
    axes.set_title("paired layers, student against teacher", fontsize=10)
    axes.set_xlabel("student layer")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=8)


def _draw_similarity(figure: Any, axes: Any, report: Report) -> None:
    matrix = report["similarity"]
    extent = (0.5, len(matrix[0]) + 0.5, 0.5, len(matrix) + 0.5)
    image = axes.imshow(
        matrix, vmin=0, vmax=1, origin="lower", aspect="auto", cmap="viridis", extent=extent
    )
    pairs = [(layer["teacher"], layer["student"]) for layer in report["layers"]]
    axes.plot(*zip(*pairs, strict=True), "o", markersize=4, markerfacecolor="none", color="w")
    axes.set_title("debiased linear CKA, pairs marked", fontsize=10)
    axes.set(xlabel="teacher layer", ylabel="student layer")
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    figure.colorbar(image, ax=axes, shrink=0.9)


def _draw_ends(axes: Any, ends: Report | None) -> None:
    axes.set_title("cosine on the first k (solid) and last k tokens (dashed)", fontsize=10)
    if ends is None:
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, "states of different widths\nhave no cosine", ha="center", va="center",
            transform=axes.transAxes,
        )  # fmt: skip
        return
    for of, name, color in (("last", "last layer", "C0"), ("mean", "mean of layers", "C3")):
        axes.plot(ends["k"], ends["first_k"][of], color=color, label=name)
        axes.plot(ends["k"], ends["last_k"][of], color=color, linestyle="--")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("k")
    axes.legend(frameon=False, fontsize=8)


def _draw_effective_ranks(axes: Any, layers: Sequence[Report]) -> None:
    for role in ROLES:
        values = [layer["effective_rank"][role] for layer in layers]
        numbers = [layer["student"] for layer in layers]
        style = {"marker": "o", "markersize": 3, "color": COLORS[role], "label": role}
        axes.plot(numbers, values, **style)
    axes.set_title("effective rank of the states", fontsize=10)
    axes.set_xlabel("student layer, and the one that it meets")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)


def _draw_heads(axes: Any, heads: Report) -> None:
    axes.set_title("singular values of the LM heads", fontsize=10)
    styles = {"student": "-", "teacher": "--"}
    for role in ROLES:
        # Those that are nothing but rounding are no part of the spectrum.
        values = heads[role].get("values", [])[: heads[role].get("rank", 0)]
        axes.plot(
            range(1, len(values) + 1), values, styles[role], color=COLORS[role],
            label=role if values else f"{role}: cannot be read",
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("direction")
    axes.legend(frameon=False, fontsize=8)


def _ratio(size: Report) -> float:
    return size["student"] / size["teacher"] if size["teacher"] else float("nan")
