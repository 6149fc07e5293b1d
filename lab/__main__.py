"""`python -m lab`: what the lab has, and its runs."""

from functools import partial
from typing import Annotated

import typer

from lab import page, queue
from lab.items import ITEMS, plan, report
from lab.pairs import PAIRS
from lab.results import differences, read

WORKERS = 2

app = typer.Typer(add_completion=False, help="Figures and tables of the paper, made here.")


@app.command("list")
def list_items() -> None:
    """What there is, how many of the runs known to be needed are made, and what is left to do."""
    width = max(map(len, ITEMS))
    for name, item in ITEMS.items():
        runs = item.plan(quick=False)
        lacking = [run for run in runs if not run.finished]
        made = f"{len(runs) - len(lacking)} of {len(runs)}"
        seconds = sum(run.steps * PAIRS[run.pair].step_seconds for run in lacking)
        minutes = seconds / 60 / WORKERS + item.report_minutes
        typer.echo(f"{name:{width}}{made:>9} runs, {minutes:4.0f} minutes left  {item.title}")


@app.command()
def run(
    names: Annotated[list[str] | None, typer.Argument(help="Items; all, in order.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The smallest that shows it.")] = False,
    workers: Annotated[int, typer.Option(help="Processes, of one thread each.")] = WORKERS,
) -> None:
    """Make the runs of items that are not there yet, and write and print what they found."""
    unknown = [name for name in names or () if name not in ITEMS]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: an item is one of {', '.join(ITEMS)}.")
    chosen = names or list(ITEMS)
    queue.finish(partial(plan, chosen, quick), workers)
    queue.each(partial(report, quick=quick), [n for n in chosen if not ITEMS[n].alone], workers)
    for name in chosen:
        item = ITEMS[name]
        if item.alone:
            report(name, quick)
        typer.echo("\n".join(["", f"{name}: {item.title}", *item.table(read(name, quick))]))
    if quick and (differing := [line for name in chosen for line in _differing(name)]):
        raise SystemExit("\n".join(["", "Other than in the committed results:", *differing]))


def _differing(name: str) -> list[str]:
    """What an item's quick results say otherwise than the committed ones, if there are any."""
    item, committed = ITEMS[name], read(name, quick=False)
    if not committed:
        return []
    verdicts = (item.verdicts(found) for found in (read(name, quick=True), committed))
    return [f"{name}: {claim}" for claim in differences(*verdicts)]


@app.command("page")
def write_page() -> None:
    """Put the committed results into the tables of docs/paper.md."""
    page.PAGE.write_text(page.filled(page.PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    app()
