"""What runs logged as one table for other programs."""

import csv
from collections.abc import Sequence
from pathlib import Path

from oprd.runs.folder import RunFolder
from oprd.text import escaped

# With these a spreadsheet begins a formula.
FORMULA = ("=", "+", "-", "@")


def write_csv(runs: Sequence[RunFolder], file: Path) -> None:
    """One row a line of a run's log: `run`, `step`, and every quantity that any run logged."""
    names = dict.fromkeys(name for run in runs for line in run.metrics for name in line)
    columns = ["step", *(name for name in names if name != "step")]
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["run", *map(_text, columns)])
        for run in runs:
            for line in run.metrics:
                cells = [line.get(name, "") for name in columns]
                writer.writerow([_text(run.name), *(c if _plain(c) else _text(c) for c in cells)])


def _plain(value: object) -> bool:
    return isinstance(value, int | float)


def _text(value: object) -> str:
    """Text that no spreadsheet takes for a formula."""
    text = escaped(str(value))
    return f"'{text}" if text.startswith(FORMULA) else text
