"""Seconds until a student is there, as `time_to_accuracy.py` found them, in a table and a picture.

README and docs/cost.md show both.

    python benchmarks/clock.py
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure
from scipy.stats import t

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "time_to_accuracy.jsonl"
PICTURE = ROOT / "docs" / "pictures" / "clock.svg"
PAGES = (ROOT / "README.md", ROOT / "docs" / "cost.md")
BEGIN, END = "<!-- clock -->\n", "\n<!-- end -->"
# Of the gap between the student before training and its teacher.
SHARE = 0.8
# Every method is compared to it, seed by seed.
BASELINE = "OPRD"
COLORS = ("#1b5e9e", "#2e8b57", "#d1495b", "#e08e0b", "#8e5ea2", "#5f6b76")

Runs = Mapping[str, Mapping[int, Mapping[str, Any]]]


def read(file: Path = RESULTS) -> Runs:
    """The runs on the problems that are reported, by method and seed."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        run = json.loads(line)
        if not run["key"]["tuning"]:
            found.setdefault(run["key"]["method"], {})[run["key"]["seed"]] = run
    return {method: dict(sorted(runs.items())) for method, runs in found.items()}


def target(run: Mapping[str, Any]) -> float:
    """The share of problems solved at which a run is there."""
    return run["before"] + SHARE * (run["teacher"] - run["before"])


def reached(run: Mapping[str, Any]) -> float | None:
    """Seconds until a run is there; between two evaluations accuracy is a straight line."""
    earlier, before = 0.0, run["before"]
    for _, seconds, solved in run["curve"]:
        if solved >= target(run):
            return earlier + (seconds - earlier) * (target(run) - before) / (solved - before)
        earlier, before = seconds, solved
    return None


def ratio(runs: Mapping[int, Mapping[str, Any]], beside: Mapping[int, Mapping[str, Any]]) -> str:
    """What a method takes of the baseline's time, paired by seed, with the 95% interval.

    Of a method that is not there by the end of its budget the least that it can be.
    """
    both = [seed for seed in runs if seed in beside]
    ends = {seed: reached(runs[seed]) for seed in both}
    logs = [
        math.log((ends[seed] or runs[seed]["spent"]) / (reached(beside[seed]) or math.nan))
        for seed in both
    ]
    if None in ends.values():
        return f"over {math.exp(fmean(logs)):.1f}"
    if len(logs) < 2:
        return f"{math.exp(logs[0]):.2f}"
    mean = fmean(logs)
    error = math.sqrt(sum((log - mean) ** 2 for log in logs) / (len(logs) - 1) / len(logs))
    half = t.ppf(0.975, len(logs) - 1) * error
    return "{:.2f} [{:.2f}, {:.2f}]".format(*(math.exp(mean + by) for by in (0, -half, half)))


def table(found: Runs) -> list[str]:
    """Seconds by method and seed, as lines of Markdown."""
    lines = ["| | seconds, by seed | beside OPRD |", "|---|---|---|"]
    for method, runs in found.items():
        cells = []
        for run in runs.values():
            seconds = reached(run)
            last = run["curve"][-1][2]
            cells.append(f"{seconds:.0f}" if seconds else f"over {run['spent']:,.0f} ({last:.0%})")
        beside = "1" if method == BASELINE else ratio(runs, found[BASELINE])
        lines.append(f"| {method} | {', '.join(cells)} | {beside} |")
    return lines


def draw(found: Runs, file: Path = PICTURE) -> None:
    """Problems solved by seconds, a line for every run."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    for color, (method, runs) in zip(COLORS, found.items(), strict=False):
        for number, run in enumerate(runs.values()):
            seconds = [0.0, *(point[1] for point in run["curve"])]
            solved = [run["before"], *(point[2] for point in run["curve"])]
            label = None if number else method
            axes.plot(seconds, solved, color=color, linewidth=1.4, alpha=0.8, label=label)
    (first, *_) = found[BASELINE].values()
    axes.axhline(target(first), color="0.5", linestyle=":", linewidth=1)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_xlabel("processor seconds of one thread, evaluations not counted")
    axes.set_ylabel("held-out problems solved")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, format="svg", metadata={"Date": None})


def filled(text: str, lines: Sequence[str]) -> str:
    """A page with the table in its place."""
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return before + BEGIN + "\n".join(lines) + END + after


def main() -> None:
    found = read()
    draw(found)
    lines = table(found)
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
