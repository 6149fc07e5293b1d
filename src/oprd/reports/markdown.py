"""A run's report as Markdown, for a model card or a pull request."""

from collections.abc import Sequence
from typing import Any, Protocol

from oprd.evaluation.table import cell
from oprd.reports.evaluations import TaskTable
from oprd.runs.folder import RunFolder


class Told(Protocol):
    """What is told of a run."""

    run: RunFolder
    what: list[tuple[str, str]]
    figures: list[tuple[str, str]]
    settings: list[tuple[str, str]]
    remarks: list[str]
    tables: list[TaskTable]
    versions: str


def section(page: Any) -> str:
    """A run: its state, what it came to, what was run, evaluations, warnings and settings."""
    run: RunFolder = page.run
    parts = [
        f"## {cell(run.name)}",
        f"{run.state.capitalize()}. {cell(run.note)}",
        _table(("", "value"), page.figures),
        _table(("", "what was run"), page.what),
        *map(evaluation, page.tables),
        _list("### Warnings", page.remarks),
        _headed("### Settings", _table(("setting", "value"), page.settings)),
        f"Versions: {cell(page.versions)}" if page.versions else "",
    ]
    return "\n\n".join(part for part in parts if part)


def evaluation(table: TaskTable) -> str:
    """A task's table, and the differences of its models."""
    rows = [
        (row.model, row.percent, f"{row.tokens:.1f}", f"{100 * row.truncated:.1f}")
        for row in table.rows
    ]
    header = ("model", f"Avg@{table.samples} (%) [95%]", "tokens, mean", "reached the limit (%)")
    said = "\n".join(f"- {cell(text)}" for text in table.differences)
    head = f"### {cell(table.task)}: {table.problems} problems × {table.samples} samples"
    return "\n\n".join(part for part in (head, _table(header, rows), said) if part)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [header, ["---"] * len(header), *([*map(cell, row)] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(head: str, lines: Sequence[str]) -> str:
    return _headed(head, "\n".join(f"- {cell(line)}" for line in lines))


def _headed(head: str, text: str) -> str:
    return f"{head}\n\n{text}" if text else ""
