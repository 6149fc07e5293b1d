"""`oprd bench`: what one update costs, by objective, as a table, a JSON file and a picture."""

from pathlib import Path
from typing import Annotated, Any

import typer

from oprd.cli.errors import setting_up
from oprd.supported import check_transformers

DEFAULT_SHAPE = "smollm2-135m"


def _option(name: str, text: str) -> Any:
    return typer.Option(f"--{name}", help=text)


def bench(
    shape: Annotated[
        str | None,
        _option("shape", f"Architecture with random weights; {DEFAULT_SHAPE} by default."),
    ] = None,
    teacher_shape: Annotated[
        str | None, _option("teacher_shape", "The teacher's, where it is another.")
    ] = None,
    student: Annotated[str | None, _option("student", "Path, in place of a shape.")] = None,
    teacher: Annotated[str | None, _option("teacher", "Path, in place of a shape.")] = None,
    layers_count: Annotated[int | None, _option("layers_count", "Blocks of a shape.")] = None,
    vocab_size: Annotated[int | None, _option("vocab_size", "Vocabulary of a shape.")] = None,
    batch_size: Annotated[int, _option("batch_size", "Rollouts of an update.")] = 2,
    prompt_length: Annotated[int, _option("prompt_length", "Tokens of a prompt.")] = 64,
    response_length: Annotated[int, _option("response_length", "Tokens of a response.")] = 448,
    teacher_prompt_length: Annotated[
        int, _option("teacher_prompt_length", "Tokens of the teacher's own prompts.")
    ] = 1000,
    window: Annotated[
        int | None, _option("window", "Supervised tokens; a quarter of the response by default.")
    ] = None,
    layers: Annotated[str, _option("layers", "Supervised layers of oprd_layers.")] = "last",
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient_checkpointing", help="Of the student, as TRL does.")
    ] = False,
    dtype: Annotated[str, _option("dtype", "Of both models' weights; no autocast.")] = "float32",
    objectives: Annotated[
        str | None, _option("objectives", "Such as oprd,topk,trl; by default all that fit.")
    ] = None,
    rounds: Annotated[int, _option("rounds", "Timed rounds; 0 measures memory alone.")] = 5,
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Measure it, in fresh processes.")
    ] = True,
    sweep: Annotated[str | None, _option("sweep", "Vary vocab, length, layers or window.")] = None,
    values: Annotated[str | None, _option("values", "Of the sweep, as in 16384,151936.")] = None,
    threads: Annotated[int | None, _option("threads", "CPU threads of PyTorch.")] = None,
    output_dir: Annotated[Path, _option("output_dir", "Where cost.json and cost.png go.")] = Path(
        "runs/bench"
    ),
) -> None:
    """Measure what one update costs, in seconds and transient memory, for every objective."""
    check_transformers()
    from oprd.analysis.setup import Setup

    setup = Setup(
        shape=shape or (None if student or teacher else DEFAULT_SHAPE),
        teacher_shape=teacher_shape,
        student=student,
        teacher=teacher,
        layers_count=layers_count,
        vocab_size=vocab_size,
        batch_size=batch_size,
        prompt_length=prompt_length,
        response_length=response_length,
        teacher_prompt_length=teacher_prompt_length,
        window=window,
        layers=layers,
        gradient_checkpointing=gradient_checkpointing,
        dtype=dtype,
    )
    if values is not None and sweep is None:
        raise ValueError("--values belongs to --sweep.")
    names = objectives.split(",") if objectives is not None else None
    points = _whole_numbers("values", values) if values is not None else []
    _run(setup, names, rounds, memory, sweep, points, threads, output_dir)


def _run(
    setup: Any,
    objectives: list[str] | None,
    rounds: int,
    memory: bool,
    sweep: str | None,
    values: list[int],
    threads: int | None,
    output_dir: Path,
) -> None:
    import json

    import torch
    from rich.console import Console
    from transformers.utils import logging

    from oprd.analysis.cost import measure_cost, sweep_setups
    from oprd.reports.cost import plot_costs, print_costs
    from oprd.runs.record import check_output_dir
    from oprd.secrets import masked

    logging.disable_progress_bar()
    if threads is not None:
        if threads < 1:
            raise ValueError(f"--threads must be at least 1, got {threads}.")
        torch.set_num_threads(threads)
    output_dir = check_output_dir(str(output_dir))
    with setting_up():
        result = measure_cost(
            sweep_setups(setup, sweep, values) if sweep else [setup],
            objectives,
            sweep=sweep,
            rounds=rounds,
            memory=memory,
            notify=lambda text: typer.echo(text, err=True),
        )
    file = output_dir / "cost.json"
    file.write_text(masked(json.dumps(result, indent=2)) + "\n")
    print_costs(result, Console())
    written = "cost.json and cost.png are"
    try:
        plot_costs(file, output_dir / "cost.png")
    except ImportError as error:
        # What was measured is there, and took its time.
        typer.echo(f"oprd: {error}", err=True)
        written = "cost.json is"
    typer.echo(f"{written} in {output_dir}")


def _whole_numbers(name: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isascii() and part.strip().isdigit() for part in parts):
        raise ValueError(f"--{name} must be whole numbers with commas, got {text!r}.")
    return [int(part) for part in parts]
