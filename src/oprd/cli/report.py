"""`oprd report`: what runs did and what it bought, in one file."""

from pathlib import Path
from typing import Annotated

import typer

from oprd.cli.errors import setting_up
from oprd.text import one_line

Runs = Annotated[list[Path], typer.Argument(help="Run folders, beside each other if several.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", help="The HTML file; by default report.html in the first run folder."),
]
Markdown = Annotated[
    Path | None, typer.Option("--markdown", help="Write the same as Markdown, for a model card.")
]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write every logged figure as a table.")]
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
    from oprd.reports import page
    from oprd.reports.pictures import write_pngs
    from oprd.reports.table import write_csv
    from oprd.runs.atomic import written_whole

    file = output or runs[0] / "report.html"
    with setting_up():
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(file) as whole:
            whole.write_text(page.html(found), encoding="utf-8")
        written = [file]
        if markdown is not None:
            markdown.write_text(page.markdown(found), encoding="utf-8")
            written.append(markdown)
        if csv is not None:
            write_csv(found, csv)
            written.append(csv)
        if png is not None:
            written += write_pngs(found, png)[:1] and [png]
    for run in found:
        typer.echo(f"{one_line(run.path)}: {run.state}. {one_line(run.note)}")
    typer.echo("Written: " + ", ".join(one_line(path) for path in written))
