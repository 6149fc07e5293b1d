"""What runs logged, and what they came to on tasks, as tables for other programs."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from oprd.evaluation.table import Compared
from oprd.reports.told import Report
from oprd.runs.atomic import written_whole
from oprd.runs.folder import RunFolder
from oprd.text import escaped

# With these a spreadsheet begins a formula.
FORMULA = ("=", "+", "-", "@")
EVALUATIONS, DIFFERENCES = "evaluations", "differences"
OF_EVALUATIONS = (
    "run", "task", "model", "problems", "samples", "average", "low", "high", "tokens", "truncated",
)  # fmt: skip
OF_DIFFERENCES = (
    "task", "run", "model", "baseline_run", "baseline", "difference", "low", "high", "won", "lost",
    "equal", "p", "p_holm",
)  # fmt: skip


def write_csv(report: Report, file: Path) -> list[Path]:
    """Write what was logged, and where anything was evaluated two tables more beside it.

    The first has a row a line of a run's log: `run`, `step`, and every quantity that any run
    logged. `NAME-evaluations.csv` has a row a model on a task, shares from 0 to 1;
    `NAME-differences.csv` a row a pair of models on the same problems, within a run and of runs'
    students against that of the first run.

    Returns:
        the files.
    """
    beside = {
        EVALUATIONS: (OF_EVALUATIONS, list(_evaluations(report))),
        DIFFERENCES: (OF_DIFFERENCES, list(_differences(report))),
    }
    tables = {file: (_columns(report.runs), _logged(report.runs))} | {
        file.with_name(f"{file.stem}-{name}{file.suffix}"): table
        for name, table in beside.items()
        if table[1]
    }
    for path, (header, rows) in tables.items():
        with written_whole(path) as whole, whole.open("w", newline="", encoding="utf-8") as opened:
            writer = csv.writer(opened)
            writer.writerow(map(_text, header))
            writer.writerows([c if _plain(c) else _text(c) for c in row] for row in rows)
    return list(tables)


def _columns(runs: Sequence[RunFolder]) -> list[str]:
    names = dict.fromkeys(name for run in runs for line in run.metrics for name in line)
    return ["run", "step", *(name for name in names if name != "step")]


def _logged(runs: Sequence[RunFolder]) -> Iterator[list[Any]]:
    columns = _columns(runs)[1:]
    for run in runs:
        for line in run.metrics:
            yield [run.name, *(line.get(name, "") for name in columns)]


def _evaluations(report: Report) -> Iterator[list[Any]]:
    for page in report.pages:
        for table in page.tables:
            for row in table.rows:
                counts = table.problems, table.samples
                yield [
                    page.run.name, table.task, row.model, *counts, *astuple(row.average),
                    row.tokens, row.truncated,
                ]  # fmt: skip


def _differences(report: Report) -> Iterable[list[Any]]:
    for page in report.pages:
        for table in page.tables:
            for found in table.compared:
                yield _difference(table.task, page.run.name, page.run.name, found)
    for table in report.across:
        first = report.runs[table.rows[0].run].name
        for row in table.rows:
            if row.against is not None:
                yield _difference(table.task, report.runs[row.run].name, first, row.against)


def _difference(task: str, run: str, baseline_run: str, found: Compared) -> list[Any]:
    result = found.result
    return [
        task, run, found.model, baseline_run, found.baseline, *astuple(result.difference),
        result.wins, result.losses, result.ties, result.p_value, found.p_holm,
    ]  # fmt: skip


def _plain(value: object) -> bool:
    return isinstance(value, int | float)


def _text(value: object) -> str:
    """Text that no spreadsheet takes for a formula."""
    text = escaped(str(value))
    return f"'{text}" if text.startswith(FORMULA) else text
