"""`python -m lab`: what the lab has, and its runs."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import typer

from lab import page, queue, verdicts
from lab.items import ITEMS, QUICK, plan, report
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
        to_report = item.report_minutes if lacking or not read(name, quick=False) else 0
        minutes = seconds / 60 / WORKERS + to_report
        typer.echo(f"{name:{width}}{made:>9} runs, {minutes:4.0f} minutes left  {item.title}")


@app.command()
def run(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Items; all in order, with --quick a selection of every kind."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The smallest that shows it.")] = False,
    workers: Annotated[int, typer.Option(help="Processes, of one thread each.")] = WORKERS,
) -> None:
    """Make the runs of items that are not there yet, and write and print what they found."""
    unknown = [name for name in names or () if name not in ITEMS]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: an item is one of {', '.join(ITEMS)}.")
    chosen = names or list(QUICK if quick else ITEMS)
    queue.finish(partial(plan, chosen, quick), workers)
    queue.each(partial(report, quick=quick), [n for n in chosen if not ITEMS[n].alone], workers)
    for name in chosen:
        item = ITEMS[name]
        if item.alone:
            report(name, quick)
        found = read(name, quick)
        settled = [f"- {claim}: {_answer(is_so)}" for claim, is_so in item.verdicts(found).items()]
        typer.echo("\n".join(["", f"{name}: {item.title}", *item.table(found), "", *settled]))
    if quick:
        _compare(chosen)
        if not names:
            left = [name for name in ITEMS if name not in QUICK]
            typer.echo(f"Left out, `--quick NAME` makes them: {', '.join(left)}.")


def _answer(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _compare(names: Sequence[str]) -> None:
    """Say that quick results find all verdicts of the committed ones again, or end with an error.

    Raises:
        SystemExit: they say otherwise.
    """
    committed = {name: found for name in names if (found := read(name, quick=False))}
    whole = {name: ITEMS[name].verdicts(found) for name, found in committed.items()}
    differing = [
        f"{name}: {claim}"
        for name, settled in whole.items()
        for claim in differences(ITEMS[name].verdicts(read(name, quick=True)), settled)
    ]
    if differing:
        raise SystemExit("\n".join(["", "Other than in the committed results:", *differing]))
    count = sum(map(len, whole.values()))
    typer.echo(f"\nVerdicts of the committed results that were found again: {count} of {count}.")
    if missing := [name for name in names if name not in committed]:
        typer.echo(f"Without committed results to compare with: {', '.join(missing)}.")


@app.command("verdicts")
def print_verdicts() -> None:
    """Grade what is expected of every item by the committed results."""
    typer.echo("\n".join(verdicts.table()))


@app.command("page")
def write_page() -> None:
    """Put the committed results into the tables of docs/paper.md."""
    page.PAGE.write_text(page.filled(page.PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    app()
