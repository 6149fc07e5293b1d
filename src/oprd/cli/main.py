"""The `oprd` command. Each subcommand imports what it needs when it runs."""

import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from oprd.cli import bridge
from oprd.cli.bench import bench
from oprd.cli.errors import one_sentence, show_tracebacks
from oprd.cli.eval import evaluate
from oprd.cli.export import export
from oprd.cli.inspect import inspect
from oprd.cli.recipes import recipes
from oprd.cli.report import report
from oprd.cli.watch import watch
from oprd.supported import check_transformers
from oprd.version import __version__

# Without rich markup the help needs no import of rich, and errors are lines that a script can read.
app = typer.Typer(
    name="oprd",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"oprd {__version__}")
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[
        bool,
        typer.Option("--debug", envvar="OPRD_DEBUG", help="Show tracebacks of all errors."),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """On-policy representation distillation of language models."""
    show_tracebacks(debug)
    if not sys.warnoptions:
        # Libraries announce their own renamings, which are no news to the person here.
        warnings.filterwarnings("ignore", category=FutureWarning)


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
@one_sentence
def train(context: typer.Context) -> None:
    """Train a student: [--config FILE.yaml] [--FIELD VALUE ...]."""
    check_transformers()
    from oprd.cli.train import run

    run(context.args)


app.command("eval")(one_sentence(evaluate))
app.command("inspect")(one_sentence(inspect))
app.add_typer(bridge.app, name="bridge")
app.command("bench")(one_sentence(bench))
app.command("export")(one_sentence(export))
app.command("watch")(one_sentence(watch))
app.command("report")(one_sentence(report))
app.command("recipes")(one_sentence(recipes))


@app.command()
@one_sentence
def doctor(
    replay: Annotated[
        Path | None, typer.Option(help="Look at a batch that a run kept: RUN/broken/step-….")
    ] = None,
    student: Annotated[str | None, typer.Option(help="With --replay: another student.")] = None,
    teacher: Annotated[str | None, typer.Option(help="With --replay: another teacher.")] = None,
) -> None:
    """Check this installation, on tiny models and offline."""
    if replay is None and (student or teacher):
        raise ValueError("--student and --teacher belong to --replay.")
    try:
        from oprd.cli.doctor import run, run_replay
    except ImportError:
        # A version that is not supported is the likely cause, and says how to mend it.
        check_transformers()
        raise

    if not (run() if replay is None else run_replay(replay, student, teacher)):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
