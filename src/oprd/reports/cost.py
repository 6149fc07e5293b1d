"""What `oprd bench` measured, as a table and as a picture, from its JSON file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from oprd.reports.figure import new_figure
from oprd.text import parse_json

MIB = 2**20
COLORS = {
    "floor": "0.6",
    "representation": "C0",
    "output": "C2",
    "naive": "C3",
    "trl": "C1",
}


def read_costs(file: Path) -> dict[str, Any]:
    """The measurements in a file of `oprd bench`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    result = parse_json(file.read_bytes())
    if not isinstance(result, dict) or "points" not in result:
        raise ValueError(f"{str(file)!r} is not a file of oprd bench: it holds no points.")
    return result


def print_costs(result: dict[str, Any], console: Console) -> None:
    """Print one table for each point, or one over all points of a sweep."""
    points = result["points"]
    tables = [_sweep_table(result)] if result["sweep"] else [_point_table(points[0])]
    for table in tables:
        console.print(table)
    console.print(Text(describe(result), style="dim"))


def describe(result: dict[str, Any]) -> str:
    """What was measured, and on what, in two sentences."""
    setup, machine = result["points"][0]["setup"], result["machine"]
    models = setup["shape"] or f"{setup['student']} from {setup['teacher']}"
    # Files of an earlier version may lack it.
    models += f" from {other}" if (other := setup.get("teacher_shape")) else ""
    sizes = {
        "blocks": setup["layers_count"],
        "vocabulary": setup["vocab_size"],
        "rollouts": setup["batch_size"],
        "prompt tokens": setup["prompt_length"],
        "response tokens": setup["response_length"],
    }
    listed = ", ".join(f"{value} {name}" for name, value in sizes.items() if value is not None)
    checkpointing = ", gradient checkpointing" if setup["gradient_checkpointing"] else ""
    return (
        f"{models}: {listed}, {setup['dtype']}{checkpointing}. "
        f"Medians of {result['rounds']} rounds after "
        f"{result['warm_up_rounds']} of warm-up; {machine['accelerator'] or 'no accelerator'}, "
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"torch {result['versions']['torch']}."
    )


def _point_table(point: dict[str, Any]) -> Table:
    table = _table("One update: time and transient memory", "objective")
    for title in ("s", "least–most", "÷floor", "÷top-16", "MiB", "÷floor", "÷top-16"):
        table.add_column(title, justify="right")
    for entry in point["objectives"]:
        table.add_row(
            Text(entry["label"]),
            _median(entry["seconds"]),
            _range(entry["seconds"]),
            _median(entry["time_to_floor"]),
            _median(entry["time_to_naive_topk"]),
            _mib(entry["transient_bytes"]),
            _ratio(entry["memory_to_floor"]),
            _ratio(entry["memory_to_naive_topk"]),
        )
    return table


def _sweep_table(result: dict[str, Any]) -> Table:
    """Seconds and memory at each point, and how the last compares with the first."""
    points = result["points"]
    table = _table(f"One update by {result['sweep']}", "objective")
    for unit in ("s", "MiB"):
        for point in points:
            table.add_column(f"{unit} at {point['value']}", justify="right")
        table.add_column("growth", justify="right")
    for entries in zip(*(point["objectives"] for point in points), strict=True):
        first, last = (entries[place]["transient_bytes"] for place in (0, -1))
        growth = last / max(1, first) if first is not None else None
        table.add_row(
            Text(entries[0]["name"]),
            *(_median(entry["seconds"]) for entry in entries),
            _median(entries[-1]["time_to_first_point"]),
            *(_mib(entry["transient_bytes"]) for entry in entries),
            _ratio(growth),
        )
    return table


def _table(title: str, first: str) -> Table:
    """A table that fits into 80 columns."""
    return Table(first, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def plot_costs(file: Path, output: Path) -> None:
    """Draw seconds and memory by objective, or along a sweep, into a PNG.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a file of `oprd bench`.
        ImportError: matplotlib is not installed.
    """
    result = read_costs(file)
    figure = new_figure(11, 4.8)
    measured = {"seconds": _seconds, "transient memory (MiB)": _bytes}
    for axes, (title, value) in zip(figure.subplots(1, 2), measured.items(), strict=True):
        draw = _draw_sweep if result["sweep"] else _draw_bars
        draw(axes, result, value)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[1].set_ylabel("")
    figure.suptitle(describe(result), fontsize=7, wrap=True)
    figure.savefig(output, dpi=120)


Value = Callable[[dict[str, Any]], float | None]


def _draw_bars(axes: Any, result: dict[str, Any], value: Value) -> None:
    entries = [e for e in result["points"][0]["objectives"] if value(e) is not None]
    labels = [entry["label"] for entry in entries]
    axes.barh(
        labels, [value(entry) for entry in entries], color=[COLORS[e["family"]] for e in entries]
    )
    for place, entry in enumerate(entries):
        if value is _seconds:
            low, high = entry["seconds"]["min"], entry["seconds"]["max"]
            axes.plot([low, high], [place, place], color="0.2", linewidth=1)
    axes.invert_yaxis()


def _draw_sweep(axes: Any, result: dict[str, Any], value: Value) -> None:
    for entries in zip(*(point["objectives"] for point in result["points"]), strict=True):
        heights = [value(entry) for entry in entries]
        if None in heights:
            continue
        places = [point["value"] for point in result["points"]]
        color, label = COLORS[entries[0]["family"]], entries[0]["name"]
        (line,) = axes.plot(places, heights, marker="o", color=color, linewidth=1.2)
        axes.annotate(label, (places[-1], heights[-1]), fontsize=7, color=line.get_color())
    axes.set_xlabel(result["sweep"])
    axes.set_ylim(bottom=0)


def _seconds(entry: dict[str, Any]) -> float | None:
    return entry["seconds"] and entry["seconds"]["median"]


def _bytes(entry: dict[str, Any]) -> float | None:
    return entry["transient_bytes"] and entry["transient_bytes"] / MIB


def _median(spread: dict[str, float] | None) -> str:
    return f"{spread['median']:.2f}" if spread else "–"


def _range(spread: dict[str, float] | None) -> str:
    return f"{spread['min']:.2f}–{spread['max']:.2f}" if spread else "–"


def _mib(count: int | None) -> str:
    return f"{count / MIB:.0f}" if count is not None else "–"


def _ratio(value: float | None) -> str:
    return f"{value:.2f}" if value is not None else "–"
