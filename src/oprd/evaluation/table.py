"""Evaluations as a table for the terminal, as JSON and as markdown for a model card.

Whatever a model, a data set or a person wrote is shown as text: markup, control characters and
HTML are escaped.
"""

import html
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from oprd.evaluation.evaluate import Evaluation, compare_evaluations
from oprd.evaluation.intervals import Comparison, Estimate
from oprd.evaluation.metrics import DISTINCT_BUDGET
from oprd.evaluation.summary import Lengths

# Keys of a header that the table shows below the figures.
SETTINGS = ("revision", "weights", "engine", "dtype", "grader", "source")


def by_task(evaluations: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """Evaluations grouped by task, in the order given."""
    groups: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        groups.setdefault(evaluation.header["task"], []).append(evaluation)
    return groups


def comparisons(evaluations: Sequence[Evaluation]) -> list[tuple[str, str, Comparison]]:
    """Every later model against every earlier one on the same task: later, earlier, result."""
    return [
        (second.header["model"], first.header["model"], compare_evaluations(first, second))
        for first, second in combinations(evaluations, 2)
    ]


def figure_rows(evaluations: Sequence[Evaluation]) -> list[tuple[str, list[str]]]:
    """Names of figures, each with one cell a model, from what the records say."""
    columns = [_column(evaluation) for evaluation in evaluations]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, [column.get(name, "–") for column in columns]) for name in names]


def print_report(evaluations: Sequence[Evaluation], console: Console) -> None:
    """Print a table a task, the paired differences and one prompt as the model read it."""
    for task, group in by_task(evaluations).items():
        models = [Column(Text(plain(e.header["model"]))) for e in group]
        table = Table(Column(""), *models, title=Text(plain(task)))
        for name, cells in figure_rows(group):
            table.add_row(*[Text(plain(cell)) for cell in (name, *cells)])
        console.print(table)
        console.print(Text(f"Prompt: {plain(group[0].header['prompt'])}"))
        for line in comparison_lines(group):
            console.print(Text(plain(line)))


def to_json(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Headers, figures and comparisons, ready for `json.dumps`."""
    return {
        "evaluations": [
            {**e.header, "obtained": len(e.records), "figures": asdict(e.summary)}
            for e in evaluations
        ],
        "comparisons": [
            {"task": task, "model": later, "baseline": earlier, **asdict(result)}
            for task, group in by_task(evaluations).items()
            for later, earlier, result in comparisons(group)
        ],
    }


def to_markdown(evaluations: Sequence[Evaluation]) -> str:
    """A section for a model card: a table a task, the differences, one prompt."""
    lines: list[str] = []
    for task, group in by_task(evaluations).items():
        lines += [f"### {_cell(task)}", "", _row("", *[e.header["model"] for e in group])]
        lines += ["|" + " --- |" * (len(group) + 1)]
        lines += [_row(name, *cells) for name, cells in figure_rows(group)]
        lines += ["", *[f"- {_cell(line)}" for line in comparison_lines(group)]]
        prompt = html.escape(plain(group[0].header["prompt"]))
        lines += ["", "One prompt, as the model read it:", "", f"<pre>{prompt}</pre>", ""]
    return "\n".join(lines)


def comparison_lines(group: Sequence[Evaluation]) -> list[str]:
    """One sentence a pair of models."""
    return [
        f"{later} − {earlier}: {_percent(result.difference, signed=True)}, "
        f"{result.wins} won, {result.losses} lost, {result.ties} equal, p = {result.p_value:.4f}"
        for later, earlier, result in comparisons(group)
    ]


def plain(text: object) -> str:
    """Text on one line, control characters as escapes: no input can steer a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def _column(evaluation: Evaluation) -> dict[str, str]:
    summary, header = evaluation.summary, evaluation.header
    n = summary.samples
    sampling = header["sampling"]
    return {
        f"Avg@{n}": _percent(summary.average),
        **{f"pass@{k}": _percent(estimate) for k, estimate in summary.pass_at.items()},
        f"Best@{n}": _percent(summary.best),
        f"maj@{n}": _percent(summary.majority),
        "solved never / always": f"{summary.solved_never:.1%} / {summary.solved_always:.1%}",
        **{
            f"Dist-{k} (first {DISTINCT_BUDGET} tokens)": _share(share)
            for k, share in summary.distinct.items()
        },
        "Dist-4g (words, paper)": _share(summary.distinct_4g),
        **{
            f"length, {kind}: mean / median / p95": _lengths(lengths)
            for kind, lengths in summary.length.items()
        },
        "truncated": f"{summary.truncated:.1%}",
        "samples obtained / asked": f"{len(evaluation.records)} / {evaluation.asked}",
        "status": ", ".join(f"{name} {count}" for name, count in summary.statuses.items()),
        "seconds": f"{summary.seconds:.0f}",
        "tokens per second": f"{summary.tokens_per_second:.0f}",
        "template": f"version {header['template_version']}, {header['template_hash']}",
        "sampling": f"temperature {sampling['temperature']}, top_p {sampling['top_p']}, "
        f"at most {sampling['max_new_tokens']} tokens, seed {sampling['seed']}",
        **{key: str(header[key]) for key in SETTINGS if header.get(key) is not None},
    }


def _percent(estimate: Estimate, signed: bool = False) -> str:
    sign = "+" if signed else ""
    low, high = estimate.low * 100, estimate.high * 100
    return f"{estimate.value * 100:{sign}.1f}% [{low:{sign}.1f}, {high:{sign}.1f}]"


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _lengths(lengths: Lengths) -> str:
    if lengths.mean is None:
        return "–"
    return f"{lengths.mean:.0f} / {lengths.median:.0f} / {lengths.p95:.0f}"


def _row(*cells: str) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    """Text in a markdown table: nothing in it is HTML, a link, emphasis, code or a new cell."""
    escaped = html.escape(plain(text))
    return "".join("\\" + c if c in r"\`*_[]|#~" else c for c in escaped)
