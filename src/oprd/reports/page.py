"""A report on runs: one HTML file that needs no network.

Whatever a model, a data set or a person wrote is shown as text: everything that the templates print
goes through `_shown`, and then through their own escaping of HTML. The page has no script, and
forbids itself to load anything.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from oprd.extras import require
from oprd.reports import facts
from oprd.reports.figure import key_line, label, styled, to_svg
from oprd.reports.markdown import LEGEND, counted, difference, not_alike
from oprd.reports.pictures import Picture, of_run, of_runs
from oprd.reports.told import Report, RunPage
from oprd.runs.folder import RunFolder
from oprd.text import escaped_lines
from oprd.version import __version__

TEMPLATES = Path(__file__).parent / "templates"


def html(report: Report, place: Path = Path()) -> str:
    """The page.

    Args:
        report: what is told of the runs.
        place: the folder that the page goes to; see `run_keys`.

    Raises:
        ImportError: jinja2 or matplotlib is not installed.
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
    runs = report.runs
    with styled():
        shared = [_inline(p, f"f{n}", markup) for n, p in enumerate(of_runs(runs, legend=False))]
        own = [
            [_inline(picture, f"r{number}p{n}", markup) for n, picture in enumerate(of_run(run))]
            for number, run in enumerate(runs)
        ]
    return environment.get_template("report.html").render(
        pages=report.pages,
        across=report.across,
        apart=not_alike(report.apart) if report.apart else "",
        shared=shared,
        own=own,
        keys=[key_line(number) for number in range(len(runs))],
        difference=difference,
        counted=counted,
        legend=LEGEND,
        differing=facts.differing(runs) if len(runs) > 1 else [],
        figures=_figure_rows(report.pages),
        keys_of_runs=json.dumps(run_keys(runs, place)),
        title=" · ".join(label(run.name, 60) for run in runs[:3]) + (" …" if runs[3:] else ""),
        version=__version__,
        style=markup((TEMPLATES / "report.css").read_text()),
    )


def run_keys(runs: Sequence[RunFolder], place: Path) -> list[str]:
    """What a page tells its runs apart by: a hash of the way from its folder to each of theirs.

    Runs of several experiments often have the same names, and a path may say what is private.
    """
    ways = (os.path.relpath(run.path.resolve(), place.resolve()) for run in runs)
    return [hashlib.sha256(os.fsencode(way)).hexdigest()[:16] for way in ways]


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
