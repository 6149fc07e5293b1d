"""A report on runs: one HTML file that needs no network, or Markdown for a model card.

Whatever a model, a data set or a person wrote is shown as text: everything that the templates print
goes through `_shown`, and then through their own escaping of HTML. The page has no script, and
forbids itself to load anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oprd.extras import require
from oprd.reports import facts
from oprd.reports.evaluations import TaskTable, read_evaluations, task_tables
from oprd.reports.figure import label, styled, to_svg
from oprd.reports.markdown import section
from oprd.reports.parting import Coloured, Scale, coloured
from oprd.reports.pictures import Picture, of_run, of_runs
from oprd.reports.plots import letter
from oprd.reports.remarks import remarks
from oprd.runs.card import shown_settings
from oprd.runs.folder import RunFolder
from oprd.text import escaped_lines
from oprd.version import __version__

TEMPLATES = Path(__file__).parent / "templates"
# Pairs of answers of a task: of one run, and of each of several.
PAIRS_OF_ONE, PAIRS_OF_SEVERAL = 4, 1


@dataclass(frozen=True)
class RunPage:
    """What the templates print of a run."""

    letter: str
    run: RunFolder
    what: list[tuple[str, str]]
    figures: list[tuple[str, str]]
    settings: list[tuple[str, str]]
    again: tuple[str, str] | None
    versions: str
    remarks: list[str]
    tables: list[TaskTable]
    rollouts: list[Coloured]
    scale: Scale | None
    pictures: list[Any] = field(default_factory=list)


def html(runs: Sequence[RunFolder]) -> str:
    """The page.

    Raises:
        ImportError: jinja2, matplotlib or scipy is not installed.
    """
    jinja: Any = require("jinja2", "report", "a report")
    markup: Any = require("markupsafe", "report", "a report").Markup
    environment = jinja.Environment(
        loader=jinja.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=lambda value: _shown(value, markup),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja.StrictUndefined,
    )
    with styled():
        shared = [_inline(p, f"f{n}", markup) for n, p in enumerate(of_runs(runs, legend=False))]
        pages = [_page(number, run, len(runs)) for number, run in enumerate(runs)]
        for number, page in enumerate(pages):
            for n, picture in enumerate(of_run(page.run)):
                page.pictures.append(_inline(picture, f"r{number}p{n}", markup))
    return environment.get_template("report.html").render(
        pages=pages,
        shared=shared,
        differing=facts.differing(runs) if len(runs) > 1 else [],
        figures=_figure_rows(pages),
        title=" · ".join(label(run.name, 60) for run in runs[:3]) + (" …" if runs[3:] else ""),
        version=__version__,
        style=markup((TEMPLATES / "report.css").read_text()),
    )


def markdown(runs: Sequence[RunFolder]) -> str:
    """The same without pictures and samples, as a section of a model card."""
    pages = [_page(number, run, len(runs)) for number, run in enumerate(runs)]
    return "\n\n".join(section(page) for page in pages) + "\n"


def _page(number: int, run: RunFolder, of: int) -> RunPage:
    evaluations, broken = read_evaluations(run.path)
    rollouts, scale = coloured(run.samples, of)
    tables = task_tables(evaluations, PAIRS_OF_ONE if of == 1 else PAIRS_OF_SEVERAL)
    return RunPage(
        letter=letter(number),
        run=run,
        what=facts.what_was_run(run),
        figures=facts.key_figures(run, tables) if run.metrics else [],
        settings=shown_settings(run.settings),
        again=facts.again(run),
        versions=facts.versions(run),
        remarks=[*remarks(run), *broken],
        tables=tables,
        rollouts=rollouts,
        scale=scale,
    )


def _figure_rows(pages: Sequence[RunPage]) -> list[list[str]]:
    """Key figures with one column each, as rows of runs."""
    columns = [dict(page.figures) for page in pages]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[column.get(name, "–") for name in names] for column in columns]
    return [names, *rows]


def _inline(picture: Picture, name: str, markup: Any) -> dict[str, Any]:
    svg = to_svg(picture.figure, name, picture.title)
    return {"svg": markup(svg), "about": picture.about}


def _shown(value: Any, markup: Any) -> Any:
    """A value as the page prints it; what is markup of our own making as it is."""
    if isinstance(value, markup):
        return value
    return escaped_lines(value if isinstance(value, str) else str(value))
