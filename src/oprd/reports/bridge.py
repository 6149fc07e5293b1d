"""The report on a fitted bridge, as text and as one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from oprd.reports.figure import new_figure

Report = Mapping[str, Any]


def print_bridge(report: Report, console: Console) -> None:
    """Print what was fitted, each layer, the curve over ranks and the rank that is advised."""
    rows, rollouts = report["rows"], report["rollouts"]
    console.print(
        f"Bridge of rank {report['rank']} (basis {report['basis']}) from width "
        f"{report['student_dim']} to {report['teacher_dim']}, fitted on {rows['fit']:,} rows of "
        f"{rollouts['fit']:,} rollouts; every figure is of {rows['held_out']:,} rows of "
        f"{rollouts['held_out']:,} others."
    )
    console.print(_layer_table(report["layers"]))
    for layer in report["layers"]:
        if layer.get("heads"):
            console.print(heads_line(layer))
    if pull := report.get("pull"):
        console.print(Text(pull_line(pull)))
    if (carried := report.get("carried")) is not None:
        console.print(
            f"Tokens that both vocabularies spell alike carry {carried:.1%} of the teacher's "
            "probability where states meet; LM heads are read over these alone."
        )
    if not report["curve"]:
        return
    console.print(rank_table(report["curve"]))
    rank, reason = report["advice"]["rank"], report["advice"]["reason"]
    console.print(Text(f"{f'Rank {rank} is advised' if rank else 'No rank is advised'}: {reason}"))


def plot_bridge(report: Report, output: Path) -> None:
    """Draw cosines by layer and by rank, E(r) and both spectra into a PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(10, 6.5)
    axes = figure.subplots(2, 2).flat
    _draw_layers(axes[0], report["layers"])
    if report["curve"]:
        draw_curve(axes[1], report)
    _draw_spectra(axes[2], report["layers"], "component_r_squared", report["rank"])
    _draw_spectra(axes[3], report["layers"], "eigenvalues", report["rank"])
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(output, dpi=120)


def _layer_table(layers: Sequence[Report]) -> Table:
    states = layers[0]["states_cosine"] is not None
    names = ["student", "teacher", *(["states"] if states else []), "cosine", "R²"]
    table = Table(*names, "λ kept", "ridge", "r*", title="by layer, before → after the fit")
    for layer in layers:
        cells = [str(layer["student"]), str(layer["teacher"])]
        cells += [f"{layer['states_cosine']:.3f}"] if states else []
        for name in ("cosine", "r_squared"):
            cells.append("{before:.3f} → {after:.3f}".format(**layer[name]))
        cells += [f"{layer['explained_variance']:.3f}", f"{layer['ridge']:g}"]
        table.add_row(*cells, "" if layer.get("heads") else str(layer["best_rank"]))
    return table


def heads_line(layer: Report) -> str:
    """What both LM heads say of the held-out rows, before any training."""
    heads = layer["heads"]
    unit = "mean square of logits" if heads["metric"] == "centered" else "nats"
    return (
        f"Both LM heads at student layer {layer['student']}, metric {heads['metric']}, rank "
        f"{layer['rank']}: a distance of {heads['distance']:.3g} ({unit}) that the student can "
        f"close in these directions, and {heads['unreachable']:.3g} that its head cannot."
    )


def pull_line(pull: Report) -> str:
    """What the bridge's pull makes of what the student says."""
    if problem := pull["problem"]:
        return f"Do not train through it alone: {problem}"
    return (
        "Pulled by the bridge, the student's next tokens come nearer to the teacher's: a KL of "
        f"{pull['before']:.3g} nats becomes {pull['after']:.3g}."
    )


def rank_table(curve: Sequence[Report]) -> Table:
    """What a bridge carries, by its rank."""
    table = Table("rank", "cosine", "R²", "E(r) / Σλ", title="mean over layers by rank")
    for point in curve:
        figures = (point["cosine"], point["r_squared"], point["rank_error"])
        table.add_row(str(point["rank"]), *(f"{figure:.3f}" for figure in figures))
    return table


def _draw_layers(axes: Any, layers: Sequence[Report]) -> None:
    numbers = [layer["student"] for layer in layers]
    for when, color in (("before", "0.7"), ("after", "C0")):
        values = [layer["cosine"][when] for layer in layers]
        axes.plot(numbers, values, color=color, marker="o", markersize=3, label=f"{when} the fit")
    axes.set_title("cosine in the bridge's space", fontsize=10)
    axes.set_xlabel("student layer")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, fontsize=8)


def draw_curve(axes: Any, report: Report) -> None:
    """Cosine, R² and E(r) by rank, with the rank that is advised."""
    curve, advised = report["curve"], report["advice"]["rank"]
    ranks = [point["rank"] for point in curve]
    for name, label, color in (
        ("cosine", "cosine", "C0"),
        ("r_squared", "R²", "C1"),
        ("rank_error", "E(r) / Σλ", "C2"),
    ):
        axes.plot(ranks, [point[name] for point in curve], color=color, marker="o", markersize=3)
        axes.plot([], [], color=color, label=label)
    if advised:
        axes.axvline(advised, color="0.5", linestyle=":", label=f"advised: {advised}")
    axes.set_xscale("log", base=2)
    axes.set_title("mean over layers", fontsize=10)
    axes.set_xlabel("rank")
    axes.legend(frameon=False, fontsize=8)


def _draw_spectra(axes: Any, layers: Sequence[Report], name: str, rank: int) -> None:
    is_share = name == "component_r_squared"
    for layer in layers:
        values = layer[name]["held_out"] if is_share else layer[name]
        total = 1 if is_share else sum(values)
        shares = [value / total if value > 0 else float("nan") for value in values]
        axes.plot(range(1, len(shares) + 1), shares, color="C0", linewidth=0.7, alpha=0.6)
    if is_share:
        axes.axhline(0.5, color="0.5", linestyle=":")
        axes.set_title("ρ² of each teacher component, by layer", fontsize=10)
    else:
        axes.set_yscale("log")
        axes.set_title("share of the teacher's variance λ / Σλ, by layer", fontsize=10)
    axes.axvline(rank, color="0.8")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("component")
