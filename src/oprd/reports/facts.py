"""What a report says of a run in words and figures, apart from its pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

from oprd.reports.evaluations import AFTER, BEFORE, TaskTable
from oprd.reports.plots import tasks
from oprd.reports.series import logged
from oprd.runs.card import shown_name, shown_settings
from oprd.runs.folder import END, RunFolder
from oprd.runs.lines import is_number
from oprd.runs.record import RATE_TEST

HOURS, MINUTES = 3600, 60


def what_was_run(run: RunFolder) -> list[tuple[str, str]]:
    """Models, data, layers and objective, as names and text."""
    record = run.record
    if not record:
        return []
    base = record.get("teacher_base")
    found = [
        ("Student", model_name(record.get("student"))),
        (
            "Teacher",
            model_name(record.get("teacher"))
            + (f", an adapter on {shown_name(str(base))}" if base else ""),
        ),
        ("Prompts", _prompts(record)),
        ("Layers, student:teacher", _layers(record)),
        *(
            (f"Bridge {name}", _bridge(bridge))
            for name, bridge in _mapping(record.get("bridges")).items()
        ),
        ("Objective", objective(run.settings)),
    ]
    if isinstance(test := record.get(RATE_TEST), Mapping) and is_number(test.get("learning_rate")):
        found.append(("Learning rate", f"found by a range test: {test['learning_rate']:g}"))
    return [(name, text) for name, text in found if text]


def objective(settings: Mapping[str, Any]) -> str:
    """The terms of the loss in a line."""
    terms = []
    stages = settings.get("stages")
    if isinstance(stages, list) and stages:
        return f"{len(stages)} stages, see the settings"
    weight, output = settings.get("representation_weight"), settings.get("output_loss")
    if weight:
        scale = settings.get("scale")
        scaled = {"unit": ", of unit length", "layer": ", each layer by its size"}.get(str(scale))
        terms.append(f"{_factor(weight)} × {settings.get('state_loss')} of states{scaled or ''}")
    if output and output != "none":
        factor = _factor(settings.get("output_weight"))
        terms.append(f"{factor} × {output} of output distributions")
    return " + ".join(terms)


def _factor(weight: Any) -> str:
    """A weight, or what it goes from and to."""
    if isinstance(weight, Mapping):
        return f"({_factor(weight.get('from'))} → {_factor(weight.get('to'))})"
    return f"{weight:g}" if is_number(weight) else str(weight)


def key_figures(run: RunFolder, tables: Sequence[TaskTable]) -> list[tuple[str, str]]:
    """What a run came to, as names and text."""
    found = []
    for task, figure in tasks([run]):
        value = logged(run.metrics, f"eval/{task}/{figure}")[:, 1]
        if len(value):
            found.append(
                (f"{task}, {figure}", _from_to(100 * value[0], 100 * value[-1], ".1f", " %"))
            )
    for table in tables:
        shares = {row.model: 100 * row.average.value for row in table.rows}
        if BEFORE in shares and AFTER in shares:
            told = _from_to(shares[BEFORE], shares[AFTER], ".1f", " %")
            teacher = f", teacher {shares['teacher']:.1f} %" if "teacher" in shares else ""
            found.append((f"{table.task}, Avg@{table.samples}", told + teacher))
    for name, key, form in (("Cosine of states", "rep_cosine", ".3f"), ("Loss", "loss", ".3g")):
        if len(value := logged(run.metrics, key)[:, 1]):
            found.append((name, _from_to(value[0], value[-1], form)))
    return [*found, *costs(run)]


def costs(run: RunFolder) -> list[tuple[str, str]]:
    """Steps, time, tokens and memory."""
    steps, of = run.step, run.steps
    found = [("Steps", f"{steps:,}" + (f" of {of:,}" if of and of != steps else ""))]
    if seconds := _seconds(run):
        found.append(("Time", duration(seconds)))
    for name, key, form in (
        ("Tokens read and written", "num_tokens", "{:,.0f}"),
        ("Tokens per second", "tokens_per_second", "{:,.0f}"),
        ("Peak memory", "peak_memory_gib", "{:.1f} GiB"),
    ):
        value = logged(run.metrics, key)[:, 1]
        if len(value):
            last = value.mean() if key == "tokens_per_second" else value[-1]
            found.append((name, form.format(last)))
    return found


def _seconds(run: RunFolder) -> float:
    """Of all its parts that ended, and of one that goes on by its steps so far; 0 if not known."""
    ends = [n for n, line in enumerate(run.metrics) if is_number(line.get(END))]
    ended = sum(run.metrics[n][END] for n in ends)
    begun = run.metrics[ends[-1]]["step"] if ends else 0
    each = logged(run.metrics[ends[-1] + 1 :] if ends else run.metrics, "step_time")[:, 1]
    return ended + (float(each.mean()) * max(0, run.step - begun) if len(each) else 0.0)


def duration(seconds: float) -> str:
    """Seconds in the unit that a person would take."""
    if seconds >= HOURS:
        return f"{seconds / HOURS:.1f} h"
    return f"{seconds / MINUTES:.1f} min" if seconds >= MINUTES else f"{seconds:.0f} s"


def differing(runs: Sequence[RunFolder]) -> list[list[str]]:
    """Settings and facts in which runs differ: a name, and one cell a run."""
    columns = [{**dict(what_was_run(run)), **dict(shown_settings(run.settings))} for run in runs]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = [[name, *(column.get(name, "–") for column in columns)] for name in names]
    return [row for row in rows if len(set(row[1:])) > 1]


def versions(run: RunFolder) -> str:
    """Packages with their versions, in a line."""
    found = _mapping(run.record.get("versions"))
    return ", ".join(f"{name} {number}" for name, number in found.items())


def model_name(name: Any) -> str:
    """A model as it is told: on the hub by its whole name, in a folder by the end of its path."""
    return shown_name(str(name)) if name else "a model built in memory"


def _prompts(record: Mapping[str, Any]) -> str:
    count, source, chat = record.get("prompts"), record.get("dataset"), record.get("chat")
    if source is None and count is None:
        return ""
    form = (
        {True: ", chat messages", False: ", plain text"}.get(chat, "") if chat is not None else ""
    )
    number = f"{count:,}" if isinstance(count, int) else "a stream"
    return number + (f" from {shown_name(str(source))}" if source else "") + form


def _layers(record: Mapping[str, Any]) -> str:
    pairs = record.get("layer_pairs")
    if not isinstance(pairs, list):
        return ""
    told = [":".join(map(str, pair)) if isinstance(pair, list) else str(pair) for pair in pairs]
    kept = told if len(told) <= 8 else [*told[:3], "…", *told[-3:]]
    return ", ".join(kept) + (f" ({len(told)} pairs)" if len(told) > 8 else "")


def _bridge(bridge: Any) -> str:
    facts = _mapping(bridge)
    return (
        f"rank {facts.get('rank')}, basis {facts.get('basis')}, fitted on {facts.get('rows')} rows"
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _from_to(first: float, last: float, form: str, unit: str = "") -> str:
    return f"{first:{form}} → {last:{form}}{unit}"
