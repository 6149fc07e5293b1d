"""`oprd report`: what runs did and what it bought, in one file."""

import json
from collections.abc import Sequence
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from oprd.cli.errors import setting_up
from oprd.text import one_line

if TYPE_CHECKING:
    from oprd.runs.folder import RunFolder

# Of a page, where its runs are named.
RUNS, HEAD = "oprd-runs", 20_000
REPORT = "report.html"
Runs = Annotated[list[Path], typer.Argument(help="Run folders, beside each other if several.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        help="The HTML file; by default report.html in the run folder, or here if there are "
        "several runs.",
    ),
]
Markdown = Annotated[
    Path | None,
    typer.Option("--markdown", help="Write it as Markdown too, without pictures and samples."),
]
Csv = Annotated[
    Path | None,
    typer.Option("--csv", help="Write every logged figure as a table, and the tasks' beside it."),
]
Png = Annotated[Path | None, typer.Option("--png", help="A folder for every picture, for papers.")]


def report(
    runs: Runs,
    output: Output = None,
    markdown: Markdown = None,
    csv: Csv = None,
    png: Png = None,
) -> None:
    """Report on runs in one HTML file that needs no network."""
    with setting_up():
        from oprd.extras import require
        from oprd.runs.folder import read_run

        for module in ("jinja2", "matplotlib", "scipy"):
            require(module, "report", "oprd report")
        found = [read_run(path) for path in runs]
        file = output or _default(found)
        _check_outputs([file, markdown, csv], png)
    from oprd.reports.markdown import markdown as as_markdown
    from oprd.reports.page import html
    from oprd.reports.pictures import write_pngs
    from oprd.reports.table import write_csv
    from oprd.reports.told import read
    from oprd.runs.atomic import written_whole

    told = read(found)
    with setting_up():
        written = []
        as_html = partial(html, place=file.parent)
        for path, form in ((file, as_html), (markdown, as_markdown)):
            if path is not None:
                with written_whole(path) as whole:
                    whole.write_text(form(told), encoding="utf-8")
                written.append(path)
        if csv is not None:
            written += write_csv(told, csv)
        if png is not None:
            written += write_pngs(found, png)[:1] and [png]
    for run in found:
        typer.echo(f"{one_line(run.path)}: {run.state}. {one_line(run.note)}")
    typer.echo("Written: " + ", ".join(one_line(path) for path in written))


def _default(runs: "Sequence[RunFolder]") -> Path:
    """Where the page goes that nobody named a place for.

    Raises:
        ValueError: the one folder is no run's, or a page on other runs stands there.
    """
    from oprd.reports.page import run_keys

    if len(runs) > 1:
        file = Path(REPORT)
    elif runs[0].state in ("empty", "not a run"):
        raise ValueError(
            f"{str(runs[0].path)!r}: {runs[0].note} A page that says so goes where --output names."
        )
    else:
        file = runs[0].path / REPORT
    known = [run_keys(runs, file.parent)]
    if len(runs) == 1:
        # A page of an earlier version has names, which say enough in the folder of the run.
        known.append([runs[0].name])
    if file.exists() and _runs_of(file) not in known:
        raise ValueError(
            f"{str(file)!r} is there and no report on {', '.join(str(run.path) for run in runs)}: "
            "name another file with --output."
        )
    return file


def _runs_of(file: Path) -> list[str] | None:
    """What a page tells its runs apart by, None where it is none of ours."""
    reader = _Head()
    try:
        with file.open(encoding="utf-8") as opened:
            reader.feed(opened.read(HEAD))
        return json.loads(reader.runs)
    except (OSError, ValueError):
        return None


class _Head(HTMLParser):
    runs = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "meta" and found.get("name") == RUNS:
            self.runs = found.get("content") or ""


def _check_outputs(files: Sequence[Path | None], folder: Path | None) -> None:
    """Make the folders that files go to, before anything is computed.

    Raises:
        ValueError: a file is a folder, or the folder a file, or two are one.
    """
    named = [path for path in files if path is not None]
    if len({path.resolve() for path in named}) < len(named):
        raise ValueError("--output, --markdown and --csv must name files of their own.")
    for path in named:
        if path.is_dir():
            raise IsADirectoryError(f"{str(path)!r} is a folder: name a file in it.")
        path.parent.mkdir(parents=True, exist_ok=True)
    if folder is not None:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"--png {str(folder)!r} is a file: name a folder.")
        folder.mkdir(parents=True, exist_ok=True)
