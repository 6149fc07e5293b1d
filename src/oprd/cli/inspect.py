"""`oprd inspect`: what two models have in common, and how to train one towards the other."""

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from oprd.cli.bridge import (
    BadRows,
    ChatTemplateKwargs,
    LayerPairing,
    Layers,
    LongPrompts,
    MinP,
    PositionK,
    Positions,
    PromptColumn,
    RepetitionPenalty,
    Seed,
    Student,
    Teacher,
    Temperature,
    TopK,
    TopP,
)
from oprd.cli.errors import setting_up
from oprd.supported import check_transformers
from oprd.text import escaped

if TYPE_CHECKING:
    from oprd.analysis.inspection.asked import Asked

Prompts = Annotated[
    str, typer.Option("--prompts", help="Prompts, from wherever oprd train reads them.")
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "--output_dir",
        help="inspect.json, inspect.png, train.yaml and rollouts; goes on if cut.",
    ),
]
TeacherBase = Annotated[
    str | None,
    typer.Option(
        "--teacher_base_model_name_or_path",
        help="Base of a teacher that is an adapter, if not the one that it names.",
    ),
]
MaxPrompts = Annotated[int, typer.Option("--max_prompts", help="Rollouts to write.")]
MaxCompletionLength = Annotated[
    int, typer.Option("--max_completion_length", help="Length limit of a rollout.")
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="Of both models, here and in train.yaml. Without it here their own, there float32.",
    ),
]
BatchSize = Annotated[int, typer.Option("--batch_size", help="Rollouts written or read at once.")]


def inspect(
    student: Student,
    teacher: Teacher,
    prompts: Prompts,
    output: Output = Path("inspect"),
    teacher_base_model_name_or_path: TeacherBase = None,
    layers: Layers = "all",
    layer_pairing: LayerPairing = "proportional",
    positions: Positions = "all",
    position_k: PositionK = 2000,
    max_prompts: MaxPrompts = 64,
    max_completion_length: MaxCompletionLength = 128,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    chat_template_kwargs: ChatTemplateKwargs = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    dtype: Dtype = None,
    bad_rows: BadRows = "error",
    long_prompts: LongPrompts = "error",
    prompt_column: PromptColumn = None,
) -> None:
    """Compare two models on rollouts of the student, and advise how to train it."""
    check_transformers()
    with setting_up():
        from oprd.analysis.inspection.asked import Asked
        from oprd.calibration.bridge.settings import FitSettings
        from oprd.models.sampling import Sampling
        from oprd.runs.record import check_output_dir
        from oprd.values import parse_layers, parse_mapping

        asked = Asked(
            student,
            teacher,
            prompts,
            FitSettings(
                layers=parse_layers(layers),
                layer_pairing=layer_pairing,
                positions=cast(Any, positions),  # checked there
                position_k=position_k,
                batch_size=batch_size,
                seed=seed,
            ),
            Sampling(
                1, temperature, top_p, max_completion_length, seed, top_k, min_p, repetition_penalty
            ),
            teacher_base_model_name_or_path,
            max_prompts,
            parse_mapping("chat_template_kwargs", chat_template_kwargs) or {},
            bad_rows,
            long_prompts,
            prompt_column,
            dtype,
        )
        folder = check_output_dir(str(output))
    _inspect(asked, folder)


def _inspect(asked: "Asked", folder: Path) -> None:
    """What can be known early is shown early, and refused before anything slow."""
    import torch
    from accelerate import PartialState
    from rich.console import Console
    from transformers.utils import logging

    from oprd.analysis.inspection.inspect import inspect_models
    from oprd.analysis.inspection.tokens import check_own_tokens, compare_tokenizers
    from oprd.calibration.models import FitModels
    from oprd.models.memory import free_bytes
    from oprd.reports.inspect import print_inspection, print_tokens

    started, console = time.monotonic(), Console()
    with setting_up():
        ours, theirs = asked.tokenizers()
        dataset = asked.load_prompts(ours)
        tokens = compare_tokenizers(ours, theirs, dataset[0]["prompt"], asked.template_options)
        print_tokens({"tokens": tokens}, console)
        own_tokens = bool(tokens["vocabulary"]["different"])
        if own_tokens:
            check_own_tokens(ours, theirs, dataset[0]["prompt"])
        logging.disable_progress_bar()
        device = PartialState(cpu=not torch.accelerator.is_available()).device
        # Before models are loaded: weights that a file holds as they are take no room of their own.
        free = free_bytes(torch.device(device or "cpu"))
        models = FitModels.load(
            asked.student,
            asked.teacher,
            asked.dtype or "auto",
            teacher_base=asked.teacher_base,
            own_tokens=own_tokens,
        )
    report = inspect_models(models, dataset, asked, tokens, folder, free)
    report["seconds"]["all"] = time.monotonic() - started
    print_inspection(report, console)
    _save(report, folder)


def _save(report: dict[str, Any], folder: Path) -> None:
    """Write the report, its picture and the recipe, and say where they are."""
    from oprd.analysis.inspection.inspect import JSON_FILE, PICTURE, RECIPE
    from oprd.reports.inspect_picture import plot_inspection
    from oprd.runs.atomic import written_whole
    from oprd.secrets import masked

    for name, text in ((JSON_FILE, json.dumps(report) + "\n"), (RECIPE, report["recipe"])):
        with written_whole(folder / name) as file:
            file.write_text(masked(text), encoding="utf-8")
    what = "Figures, picture and rollouts"
    try:
        plot_inspection(report, folder / PICTURE)
    except ImportError as error:
        what = "Figures and rollouts"
        typer.echo(str(error))
    # A name may hold what steers a terminal.
    places = escaped(str(folder)), escaped(shlex.quote(str(folder / RECIPE)))
    typer.echo(
        f"\n{report['seconds']['all']:.0f} seconds. {what} are in "
        f"{places[0]}. Train with\n    oprd train --config {places[1]}"
    )
