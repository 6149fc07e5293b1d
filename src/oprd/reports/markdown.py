"""A run's report as Markdown, for a model card or a pull request."""

from collections.abc import Sequence

from oprd.evaluation.table import cell, p_text, points
from oprd.reports.across import Standing
from oprd.reports.evaluations import TaskTable
from oprd.reports.told import Report, RunPage

LEGEND = (
    "Avg@n is the share of n responses to a problem that are correct, mean over problems. "
    "[low, high] is a 95% interval with problems as the unit; differences are paired by problem, "
    "and p is of swapping two models problem by problem, corrected by Holm."
)


def markdown(report: Report) -> str:
    """The page as a section of a model card: without pictures, samples and the paths of models."""
    first = [_beside(report)] if report.across or report.apart else []
    return "\n\n".join([*first, *map(_section, report.pages)]) + "\n"


def _section(page: RunPage) -> str:
    """A run: its state, what it came to, what was run, evaluations, warnings and settings."""
    run = page.run
    parts = [
        f"## {cell(run.name)}",
        f"{run.state.capitalize()}. {cell(run.note)}",
        *map(cell, page.lead),
        _table(("", "value"), page.figures),
        _table(("", "what was run"), page.what),
        *map(evaluation, page.tables),
        LEGEND if page.tables else "",
        _list("### Warnings", page.remarks),
        _headed("### Settings", _table(("setting", "value"), page.settings)),
        f"Versions: {cell(page.versions)}" if page.versions else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _beside(report: Report) -> str:
    """Runs' students on the same problems, each against that of the first run."""
    pages, tables = report.pages, report.across
    parts = [f"## {len(pages)} runs beside each other"]
    for table in tables:
        first = pages[table.rows[0].run]
        header = (
            "run", "student", f"Avg@{table.samples} (%) [95%]",
            f"difference from {cell(first.letter)} (points) [95%]", "won, lost, equal", "p, Holm",
        )  # fmt: skip
        parts.append(f"### {cell(table.task)}: {counted(table.problems, table.samples)}")
        rows = [
            (
                f"{pages[row.run].letter} {pages[row.run].run.name}",
                row.row.model,
                row.row.percent,
                *difference(row),
            )
            for row in table.rows
        ]
        parts.append(_table(header, rows))
    if tables:
        parts.append(LEGEND)
    if report.apart:
        parts.append(cell(not_alike(report.apart)))
    return "\n\n".join(parts)


def difference(row: Standing) -> tuple[str, str, str]:
    """What a student's row says of its difference from the first one."""
    if row.against is None:
        return "–", "–", "–"
    result = row.against.result
    counts = f"{result.wins}, {result.losses}, {result.ties}"
    p_value = p_text(row.against.p_holm, result.p_is_bound).removeprefix("= ")
    return points(result.difference, ""), counts, p_value


def counted(problems: int, samples: int) -> str:
    """How many problems and samples of each."""
    return f"{problems} problems × {samples} sample{'' if samples == 1 else 's'}"


def not_alike(tasks: Sequence[str]) -> str:
    """Why the students of some runs are in no table together."""
    return (
        f"{', '.join(tasks)}: not all runs were evaluated alike (problems, prompt or sampling "
        "differ), so that their figures are not compared."
    )


def evaluation(table: TaskTable) -> str:
    """A task's table, and the differences of its models."""
    rows = [
        (row.model, row.percent, f"{row.tokens:.1f}", f"{100 * row.truncated:.1f}")
        for row in table.rows
    ]
    header = ("model", f"Avg@{table.samples} (%) [95%]", "tokens, mean", "reached the limit (%)")
    said = "\n".join(f"- {cell(text)}" for text in table.differences)
    head = f"### {cell(table.task)}: {counted(table.problems, table.samples)}"
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
