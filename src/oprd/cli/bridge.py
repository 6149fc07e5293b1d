"""`oprd bridge`: bridges between models of different depth and width."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from oprd.cli.errors import one_sentence, setting_up

if TYPE_CHECKING:
    from oprd.training.bridge.fit import BridgeFit

app = typer.Typer(help="Bridges between models of different depth and width.")


@app.callback()
def bridges() -> None:
    """Bridges between models of different depth and width."""


@app.command()
@one_sentence
def fit(
    student: Annotated[str, typer.Option("--student", help="Path or hub id of the student.")],
    teacher: Annotated[str, typer.Option("--teacher", help="Path or hub id of the teacher.")],
    prompts: Annotated[
        str | None, typer.Option("--prompts", help="Prompts, from wherever oprd train reads them.")
    ] = None,
    rollouts: Annotated[
        Path | None, typer.Option("--rollouts", help="Read the rollouts.jsonl of another fit.")
    ] = None,
    output_dir: Annotated[
        Path, typer.Option("--output_dir", help="Rollouts, bridge and report; goes on if cut.")
    ] = Path("runs/bridge"),
    rank: Annotated[int, typer.Option("--rank", help="Dimensions of the shared space.")] = 8,
    layers: Annotated[
        str, typer.Option("--layers", help="Student layers, as in oprd train.")
    ] = "all",
    positions: Annotated[
        str, typer.Option("--positions", help="all, last, first_k or last_k.")
    ] = "last_k",
    position_k: Annotated[
        int, typer.Option("--position_k", help="How many, for first_k and last_k.")
    ] = 2000,
    basis: Annotated[
        str, typer.Option("--basis", help="The teacher's directions: pca, rrr or fisher.")
    ] = "pca",
    ridge: Annotated[
        float | None, typer.Option("--ridge", help="Default: the best on held-out rows, by layer.")
    ] = None,
    max_prompts: Annotated[
        int, typer.Option("--max_prompts", help="Rollouts to write; 2000 are the paper's.")
    ] = 2000,
    max_rows: Annotated[
        int | None, typer.Option("--max_rows", help="Read no more rows than this.")
    ] = None,
    max_completion_length: Annotated[
        int, typer.Option("--max_completion_length", help="Length limit of a rollout.")
    ] = 512,
    temperature: Annotated[float, typer.Option("--temperature", help="Of the rollouts.")] = 1.0,
    top_p: Annotated[float, typer.Option("--top_p", help="Of the rollouts.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Of the rollouts and a task's prompts.")] = 0,
    batch_size: Annotated[
        int, typer.Option("--batch_size", help="Rollouts written or read at once.")
    ] = 8,
    dtype: Annotated[str, typer.Option("--dtype", help="auto is the checkpoints' own.")] = "auto",
    bad_rows: Annotated[
        str, typer.Option("--bad_rows", help="error, or skip and count, bad rows of a file.")
    ] = "error",
    long_prompts: Annotated[
        str, typer.Option("--long_prompts", help="error, or drop, prompts without room.")
    ] = "error",
) -> None:
    """Fit a bridge on the student's rollouts and report how well it carries.

    Under `accelerate launch -m oprd bridge fit …` every process writes and reads its share.
    """
    import torch
    from accelerate import PartialState

    from oprd.evaluation.sampling import Sampling
    from oprd.training.bridge.fit import FitSettings, check_fit, fit_bridge
    from oprd.training.bridge.models import FitModels
    from oprd.training.data import load_prompts
    from oprd.training.sources import check_output_dir, locate
    from oprd.training.values import parse_layers

    settings = FitSettings(
        rank=rank,
        basis=basis,  # pyright: ignore[reportArgumentType] # checked by FitSettings
        ridge=ridge,
        layers=parse_layers(layers),
        positions=positions,  # pyright: ignore[reportArgumentType] # likewise
        position_k=position_k,
        max_rows=max_rows,
        batch_size=batch_size,
        seed=seed,
    )
    sampling = Sampling(1, temperature, top_p, max_completion_length, seed)
    if (prompts is None) == (rollouts is None):
        raise ValueError("give --prompts to write rollouts, or --rollouts to read those of a fit.")
    if long_prompts not in ("error", "drop"):
        raise ValueError(f"--long_prompts must be 'error' or 'drop', got {long_prompts!r}.")
    with setting_up():
        folder = check_output_dir(str(output_dir))
        for name, what in ((student, "student"), (teacher, "teacher")):
            locate(name, what)
        if prompts is not None:
            dataset = load_prompts(
                prompts,
                bad_rows=bad_rows,  # pyright: ignore[reportArgumentType] # checked there
                max_prompts=max_prompts,
                seed=seed,
            )
        else:
            dataset = None
        # Before models are loaded: it decides which device each process loads them to.
        state = PartialState(cpu=not torch.accelerator.is_available())
        models = FitModels.load(student, teacher, dtype)
        check_fit(models.student, models.teacher, settings)
    if dataset is not None:
        found = models.write_rollouts(
            dataset, sampling, folder, drop=long_prompts == "drop", batch_size=batch_size
        )
    else:
        found = models.reuse_rollouts(cast(Path, rollouts))
    fitted = fit_bridge(
        models.student, models.teacher, found, settings, provenance=models.provenance, folder=folder
    )
    if state.is_main_process:
        _save(fitted, folder)


def _save(fitted: "BridgeFit", folder: Path) -> None:
    """Write the bridge and its report, and print what was written."""
    from rich.console import Console

    from oprd.reports.bridge import plot_bridge, print_bridge

    path = fitted.save(folder)
    print_bridge(fitted.report, Console())
    with (folder / "report.txt").open("w", encoding="utf-8") as file:
        print_bridge(fitted.report, Console(file=file, width=120))
    try:
        plot_bridge(fitted.report, folder / "report.png")
    except ImportError as error:
        typer.echo(str(error))
    typer.echo(f"The bridge is {path}; rollouts and report are beside it.")
