"""Evaluations as a table for the terminal, as JSON and as markdown for a model card.

Whatever a model, a data set or a person wrote is shown as text: markup, control characters and
HTML are escaped.
"""

import html
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, astuple
from itertools import combinations
from typing import Any, NamedTuple, get_args

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from oprd.evaluation.grading import Status
from oprd.evaluation.intervals import Comparison, Estimate, holm
from oprd.evaluation.metrics import DISTINCT_BUDGET
from oprd.evaluation.records import GRADER_FAILED
from oprd.evaluation.result import Evaluation, compare_evaluations
from oprd.evaluation.summary import Lengths, Summary

# Keys of a header that a reader needs to believe the figures.
SETTINGS = ("path", "revision", "weights", "engine", "dtype", "grader", "source")
LEGEND = (
    f"[low, high] is a 95% interval with problems as the unit. Dist-n: first {DISTINCT_BUDGET} "
    "tokens of a sample; Dist-4g: words, as in the paper. Tokens: mean / median / p95. "
    "p: of swapping models problem by problem; corrected by Holm for the comparisons of a table."
)


def by_task(evaluations: Sequence[Evaluation]) -> dict[str, list[Evaluation]]:
    """Evaluations grouped by task, in the order given."""
    groups: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        groups.setdefault(evaluation.header["task"], []).append(evaluation)
    return groups


class Compared(NamedTuple):
    """A model against an earlier one, and its p corrected for all comparisons of the table."""

    model: str
    baseline: str
    result: Comparison
    p_holm: float


def comparisons(evaluations: Sequence[Evaluation], *, to_first: bool = False) -> list[Compared]:
    """Every later model against every earlier one on the same task, or against the first alone."""
    pairs = list(combinations(evaluations, 2))
    if to_first:
        pairs = pairs[: max(0, len(evaluations) - 1)]
    results = [compare_evaluations(*pair) for pair in pairs]
    corrected = holm([result.p_value for result in results])
    return [
        Compared(second.header["model"], first.header["model"], result, p_holm)
        for (first, second), result, p_holm in zip(pairs, results, corrected, strict=True)
    ]


def rows_and_notes(group: Sequence[Evaluation]) -> tuple[list[list[str]], list[tuple[str, str]]]:
    """What the records and headers of one task say.

    Returns:
        Rows of a name and one cell a model, and notes of a name and what holds for every model.
    """
    found = {status for evaluation in group for status in evaluation.summary.statuses}
    statuses = [status for status in get_args(Status) if status in found - {*GRADER_FAILED}]
    figures = _aligned([_figures(evaluation, statuses) for evaluation in group])
    settings = _aligned([_settings(evaluation) for evaluation in group])
    differing = [row for row in settings if len(set(row[1:])) > 1]
    return figures + differing, [(row[0], row[1]) for row in settings if row not in differing]


def print_report(evaluations: Sequence[Evaluation], console: Console) -> None:
    """Print a table a task, the paired differences, and what holds for every model."""
    for task, group in by_task(evaluations).items():
        rows, notes = rows_and_notes(group)
        models = [Column(Text(plain(e.header["model"])), overflow="fold") for e in group]
        table = Table(Column(""), *models, title=Text(plain(task)))
        for row in rows:
            table.add_row(*[Text(plain(cell)) for cell in row])
        console.print(table)
        for line in (*comparison_lines(group), LEGEND, *map(": ".join, notes)):
            console.print(Text(plain(line)), soft_wrap=True)


def to_json(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Headers, figures and comparisons, ready for `json.dumps`."""
    return {
        "evaluations": [
            {**e.header, "obtained": len(e.records), "figures": asdict(e.summary)}
            for e in evaluations
        ],
        "comparisons": [
            {
                "task": task,
                "model": found.model,
                "baseline": found.baseline,
                **asdict(found.result),
                "p_holm": found.p_holm,
            }
            for task, group in by_task(evaluations).items()
            for found in comparisons(group)
        ],
    }


def to_markdown(evaluations: Sequence[Evaluation]) -> str:
    """A section for a model card: a table a task, the differences, what holds for every model."""
    lines: list[str] = []
    for task, group in by_task(evaluations).items():
        rows, notes = rows_and_notes(group)
        lines += [f"### {cell(task)}", "", _row("", *[e.header["model"] for e in group])]
        lines += ["|" + " --- |" * (len(group) + 1)]
        lines += [_row(*row) for row in rows]
        said = (*comparison_lines(group), LEGEND, *map(": ".join, notes))
        lines += ["", *[f"- {cell(line)}" for line in said], ""]
    return "\n".join(lines)


def comparison_lines(group: Sequence[Evaluation]) -> list[str]:
    """One sentence a pair of models."""
    return sentences(comparisons(group))


def sentences(found: Sequence[Compared]) -> list[str]:
    """One sentence a comparison."""
    return [_sentence(compared, len(found)) for compared in found]


def _sentence(compared: Compared, comparisons: int) -> str:
    result = compared.result
    p_values = f"p {p_text(result.p_value, result.p_is_bound)}"
    if comparisons > 1:
        corrected = p_text(compared.p_holm, result.p_is_bound)
        p_values += f", corrected for {comparisons} comparisons {corrected}"
    return (
        f"{compared.model} − {compared.baseline}: {points(result.difference)}, "
        f"{result.wins} won, {result.losses} lost, {result.ties} equal, "
        f"{p_values}"
    )


def p_text(value: float, is_bound: bool) -> str:
    """A p with its sign of relation."""
    # Four places, or as many as show a digit.
    places = max(4, -math.floor(math.log10(value)))
    return f"{'<' if is_bound else '='} {value:.{places}f}"


def plain(text: object) -> str:
    """Text on one line, control characters as escapes: no input can steer a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def _aligned(columns: Sequence[dict[str, str]]) -> list[list[str]]:
    """Rows of a name and its cell in every column."""
    names = dict.fromkeys(name for column in columns for name in column)
    return [[name, *[column.get(name, "–") for column in columns]] for name in names]


def _figures(evaluation: Evaluation, statuses: Sequence[str]) -> dict[str, str]:
    summary = evaluation.summary
    n = summary.samples
    # With one sample these are all the same figure.
    several = {
        **{f"pass@{k}": _percent(estimate) for k, estimate in summary.pass_at.items()},
        f"Best@{n}": _percent(summary.best),
        f"maj@{n}": "–" if summary.majority is None else _percent(summary.majority),
        "solved never / always": f"{summary.solved_never:.1%} / {summary.solved_always:.1%}",
    }
    return {
        f"Avg@{n}": _percent(summary.average),
        **(several if n > 1 else {}),
        **{f"Dist-{k}": _share(share) for k, share in summary.distinct.items()},
        "Dist-4g": _share(summary.distinct_4g),
        **{f"tokens, {kind}": _lengths(lengths) for kind, lengths in summary.length.items()},
        "reached the limit": f"{summary.truncated:.1%}",
        "samples obtained": f"{len(evaluation.records)} of {evaluation.asked}",
        **{f"  {status}": str(summary.statuses.get(status, 0)) for status in statuses},
        **_failures(summary),
        "seconds": f"{summary.seconds:.0f}",
        "tokens per second": f"{summary.tokens_per_second:.0f}",
    }


def _failures(summary: Summary) -> dict[str, str]:
    """How often the grader failed: apart from what the answers are, which is not known then."""
    if not any(summary.statuses.get(status) for status in GRADER_FAILED):
        return {}
    counts = " / ".join(str(summary.statuses.get(status, 0)) for status in GRADER_FAILED)
    return {f"not graded, {' / '.join(GRADER_FAILED)}": counts}


def _settings(evaluation: Evaluation) -> dict[str, str]:
    header = evaluation.header
    sampling, options = header["sampling"], header.get("chat_template_kwargs")
    return {
        "sampling": f"temperature {sampling['temperature']}, top_p {sampling['top_p']}, "
        f"at most {sampling['max_new_tokens']} tokens, seed {sampling['seed']}",
        "template": f"version {header['template_version']}, {header['template_hash']}",
        **({"chat_template_kwargs": json.dumps(options)} if options else {}),
        "prompt, as a model read it": header["prompt"],
        **{key: str(header[key]) for key in SETTINGS if header.get(key) is not None},
    }


def _percent(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} [{estimate.low * 100:.1f}, {estimate.high * 100:.1f}]"


def points(estimate: Estimate, unit: str = " points") -> str:
    """A difference with its interval."""
    value, low, high = (100 * figure for figure in astuple(estimate))
    return f"{value:+.1f}{unit} [{low:+.1f}, {high:+.1f}]"


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _lengths(lengths: Lengths) -> str:
    if lengths.mean is None:
        return "–"
    return f"{lengths.mean:.0f} / {lengths.median:.0f} / {lengths.p95:.0f}"


def _row(*cells: str) -> str:
    return "| " + " | ".join(map(cell, cells)) + " |"


def cell(text: str) -> str:
    """Text in a markdown table: nothing in it is HTML, a link, emphasis, code or a new cell."""
    # Outside of tags quotes are text, and an entity of theirs would hold a #.
    escaped = html.escape(plain(text), quote=False)
    return "".join("\\" + c if c in r"\`*_[]|#~" else c for c in escaped)
