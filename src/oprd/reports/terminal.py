"""A run as a terminal shows it: how far it is, its curves, its last rollout, its warnings.

Prompts, responses and names are strangers' text: they are shown escaped, and never as markup.
"""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from oprd.reports.facts import duration, model_name, objective
from oprd.reports.parting import Scale
from oprd.reports.plots import tasks
from oprd.reports.remarks import remarks
from oprd.reports.series import logged, series
from oprd.runs.folder import RunFolder, seconds_per_step
from oprd.runs.lines import is_number
from oprd.runs.samples import Sample
from oprd.text import escaped, escaped_lines, one_line, shortened

CURVES = (
    ("loss", "loss", ".4g"),
    ("rep_cosine", "cosine of states", ".4f"),
    ("grad_norm", "gradient norm", ".3g"),
    ("completions/mean_length", "response length, tokens", ".0f"),
    ("completions/clipped_ratio", "reached the limit, share", ".2f"),
    ("diagnostics/student_entropy", "entropy, nats", ".3f"),
    ("diagnostics/reverse_kl", "reverse KL, nats", ".3g"),
    ("tokens_per_second", "tokens per second", ",.0f"),
)
BLOCKS = " ▁▂▃▄▅▆▇█"
# From agreement to the furthest apart.
SHADES = ("", "yellow", "bold yellow", "red", "bold red", "bold red underline")
# Characters of a prompt, tokens of a response, warnings.
PROMPT, TOKENS, WARNINGS = 300, 160, 4


def screen(run: RunFolder, width: int) -> RenderableType:
    """A run in so many columns."""
    parts: list[RenderableType] = [_head(run), _progress(run, width)]
    if run.metrics:
        parts.append(_curves(run, max(10, width - 58)))
    if run.samples:
        parts.append(_rollout(run.samples))
    if said := remarks(run)[-WARNINGS:]:
        text = Text("\n").join(Text(f"• {one_line(each)}") for each in said)
        parts.append(Panel(text, title="warnings", title_align="left", border_style="yellow"))
    return Group(*parts)


def sparkline(values: Sequence[float]) -> str:
    """Values as blocks of eight heights."""
    if not len(values):
        return ""
    low, high = min(values), max(values)
    if high == low:
        return BLOCKS[4] * len(values)
    return "".join(BLOCKS[1 + round(7 * (value - low) / (high - low))] for value in values)


def _head(run: RunFolder) -> Text:
    head = Text(escaped(run.name), style="bold")
    head.append(f"  {run.state}. ", style="green" if run.state == "finished" else "cyan")
    head.append(one_line(run.note), style="not bold")
    student, teacher = (run.record.get(role) for role in ("student", "teacher"))
    if student and teacher:
        names = " ← ".join(one_line(model_name(name)) for name in (student, teacher))
        told = f"\n{names}   {one_line(objective(run.settings))}"
        head.append(told, style="not bold dim")
    return head


def _progress(run: RunFolder, width: int) -> RenderableType:
    if not run.steps:
        return Text("")
    bar = Table.grid(padding=(0, 1))
    pace, left = seconds_per_step(run.metrics), run.seconds_left()
    told = [f"{run.step:,}/{run.steps:,}"]
    if pace is not None:
        told.append(f"{pace:.3g} s a step")
    if left is not None and run.state == "running":
        told.append(f"{duration(left)} left")
    shown = ProgressBar(total=run.steps, completed=run.step, width=max(10, width - 44))
    bar.add_row(shown, Text(", ".join(told)))
    return bar


def _curves(run: RunFolder, columns: int) -> Table:
    table = Table.grid(padding=(0, 1))
    figures = [
        (f"eval/{task}/{figure}", f"{shortened(escaped(task), 20)} {figure}", ".1%")
        for task, figure in tasks([run])
    ]
    for key, name, form in (*figures, *CURVES):
        values = logged(run.metrics, key)[:, 1]
        if not len(values):
            continue
        line = sparkline(series(run.metrics, key, points=columns).values.tolist())
        first, last = (format(float(value), form) for value in (values[0], values[-1]))
        table.add_row(Text(name, style="dim"), Text(first), Text(line, style="cyan"), Text(last))
    return table


def _rollout(samples: Sequence[Sample]) -> Panel:
    """The last rollout, coloured by where the models part.

    As on a page the scale is that of the first and the last step, so that colours go as the models
    come to agree.
    """
    last = samples[-1]
    ends = samples[0].step, last.step
    scale = Scale.of([sample for sample in samples if sample.step in ends])
    prompt = shortened(escaped_lines(last.prompt.strip()), PROMPT)
    text = Text(f"{prompt}\n", style="dim")
    rows = list(zip(last.tokens, last.written, last.cosine, strict=True))
    for token, written, cosine in rows[:TOKENS]:
        style = "not dim"
        if not written:
            style = "dim italic"
        elif scale is not None and is_number(cosine):
            style = f"not dim {SHADES[scale.shade(float(cosine or 0))]}".strip()
        text.append(escaped_lines(token), style=style)
    if len(rows) > TOKENS:
        text.append(f" … {len(rows) - TOKENS} further tokens")
    colours = ""
    if scale is not None:
        colours = f"; yellow to red: cosine from {scale.high:.3f} down to {scale.low:.3f}"
    title = f"rollout of step {last.step}{colours}"
    return Panel(text, title=title, title_align="left", border_style="dim")
