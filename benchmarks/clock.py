"""Seconds until a student is there, as `time_to_accuracy.py` found them, in a table and a picture.

    python benchmarks/clock.py

writes both into README and docs/cost.md.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_1samp

from oprd.reports.figure import line_style, new_figure, styled

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "time_to_accuracy.jsonl"
PICTURE = ROOT / "docs" / "pictures" / "clock.svg"
# How many seeds a method needs to stand in README and in the picture; elsewhere all do.
SHOWN = 3
BEGIN, END = "<!-- clock -->\n", "<!-- end -->"
# Of the gap between the student before training and its teacher.
SHARE = 0.8
# Every method is compared to it, seed by seed.
BASELINE = "OPRD"

Run = Mapping[str, Any]
Runs = Mapping[str, Mapping[int, Run]]


def read(file: Path = RESULTS) -> Runs:
    """The runs on the problems that are reported, by method and seed, the fastest method first.

    Raises:
        ValueError: a method has two of one seed, which another rate or other problems set apart.
    """
    found: dict[str, dict[int, Run]] = {}
    for run in runs_in(file):
        key = run["key"]
        if key["tuning"]:
            continue
        of = found.setdefault(key["method"], {})
        if key["seed"] in of:
            raise ValueError(f"{file.name} has two runs of {key['method']} with seed {key['seed']}")
        of[key["seed"]] = run
    return dict(sorted(found.items(), key=lambda of: np.mean([took(r) for r in of[1].values()])))


def runs_in(file: Path) -> Iterator[Run]:
    """The runs of a file, none where it is not there."""
    if file.exists():
        yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())


def target(run: Run) -> float:
    """The share of problems solved at which a run is there."""
    return run["before"] + SHARE * (run["teacher"] - run["before"])


def points(run: Run) -> list[tuple[float, float]]:
    """Seconds, and the share of problems solved then."""
    return [(0.0, run["before"]), *((seconds, solved) for _, seconds, solved in run["curve"])]


def reached(run: Run) -> float | None:
    """Seconds until a run is there; between two evaluations accuracy is a straight line."""
    (earlier, before), *later = points(run)
    for seconds, solved in later:
        if solved >= target(run):
            return earlier + (seconds - earlier) * (target(run) - before) / (solved - before)
        earlier, before = seconds, solved
    return None


def of_seeds(found: Runs, count: int) -> Runs:
    """The methods with at least so many runs."""
    return {method: runs for method, runs in found.items() if len(runs) >= count}


def took(run: Run) -> float:
    """Seconds until a run is there, or until it was last looked at."""
    seconds = reached(run)
    return points(run)[-1][0] if seconds is None else seconds


def ratio(runs: Mapping[int, Run], beside: Mapping[int, Run]) -> str:
    """What a method takes of the baseline's time: the geometric mean over the seeds of both.

    With its 95% interval, unless a run was not there when it was last looked at: then at least so
    much, of these seeds.

    Raises:
        ValueError: they share no seed, or the baseline was not there in one that they share.
    """
    both = sorted(set(runs) & set(beside))
    if not both or any(reached(beside[seed]) is None for seed in both):
        raise ValueError(f"{BASELINE} has to be there with the seeds of what is compared to it")
    logs = np.log([took(runs[seed]) / took(beside[seed]) for seed in both])
    if any(reached(runs[seed]) is None for seed in both):
        return f"over {np.floor(10 * np.exp(logs.mean())) / 10:.1f}"
    if len(both) == 1:
        return f"{np.exp(logs[0]):.2f}"
    interval = ttest_1samp(logs, 0).confidence_interval(0.95)
    return "{:.2f} [{:.2f}, {:.2f}]".format(*np.exp([logs.mean(), *interval]))


def table(found: Runs) -> list[str]:
    """Seconds by method and seed, as lines of Markdown."""
    seeds = sorted({seed for runs in found.values() for seed in runs})
    head = ["", *(f"seed {seed}" for seed in seeds), f"of {BASELINE}'s time"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for method, runs in found.items():
        cells = [_cell(runs[seed]) if seed in runs else "" for seed in seeds]
        beside = "1" if method == BASELINE else ratio(runs, found[BASELINE])
        lines.append(f"| {' | '.join([method, *cells, beside])} |")
    return lines


def summary(found: Runs) -> list[str]:
    """The same by method alone."""
    lines = [
        f"|  | seeds | seconds, median | the least | the most | of {BASELINE}'s time |",
        "|---" * 6 + "|",
    ]
    for method, runs in found.items():
        by_time = sorted(runs.values(), key=lambda run: (reached(run) is None, took(run)))
        # Of what was not there the median is not known: the later of two in the middle is a run's.
        middle = _cell(by_time[len(by_time) // 2])
        if all(reached(run) is not None for run in by_time):
            middle = f"{np.median([took(run) for run in by_time]):.0f}"
        beside = "1" if method == BASELINE else ratio(runs, found[BASELINE])
        ends = (_cell(by_time[0]), _cell(by_time[-1]))
        lines.append(f"| {' | '.join([method, str(len(runs)), middle, *ends, beside])} |")
    return lines


def _cell(run: Run) -> str:
    if reached(run) is not None:
        return f"{took(run):.0f}"
    return f"over {took(run):.0f} ({points(run)[-1][1]:.0%})"


def draw(found: Runs, file: Path = PICTURE) -> None:
    """Problems solved by seconds, a line for every run."""
    with styled():
        figure = new_figure(8, 3.6)
        axes = figure.add_subplot()
        for number, (method, runs) in enumerate(found.items()):
            for which, run in enumerate(runs.values()):
                name = "" if which else method
                axes.plot(*zip(*points(run), strict=True), **line_style(number), label=name)
        (first, *_) = found[BASELINE].values()
        axes.axhline(target(first), color="0.5", linewidth=1, label=f"{SHARE:.0%} of the gap")
        axes.set(
            xlabel="processor seconds of one thread, evaluations not counted",
            ylabel="held-out problems solved",
            ylim=(0, 1),
        )
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.legend(loc="lower right")
        file.parent.mkdir(exist_ok=True)
        # Pages are read on a dark ground, too.
        said = {"Date": None, "Creator": None}
        figure.savefig(file, format="svg", facecolor="white", metadata=said)


def filled(text: str, lines: Sequence[str]) -> str:
    """A page with the table in its place."""
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    return before + BEGIN + "".join(f"{line}\n" for line in lines) + END + after


def pages(found: Runs) -> dict[Path, list[str]]:
    """What stands on each page, as lines of Markdown."""
    return {
        ROOT / "README.md": summary(of_seeds(found, SHOWN)),
        ROOT / "docs" / "cost.md": table(found),
    }


def main() -> None:
    found = read()
    draw(of_seeds(found, SHOWN))
    for page, lines in pages(found).items():
        page.write_text(filled(page.read_text(encoding="utf-8"), lines), encoding="utf-8")
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
