"""`oprd bridge`: bridges between models of different depth and width."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from oprd.cli.errors import one_sentence, setting_up
from oprd.supported import check_transformers

if TYPE_CHECKING:
    from datasets import Dataset

    from oprd.calibration.bridge.fit import BridgeFit
    from oprd.calibration.bridge.settings import FitSettings
    from oprd.calibration.models import FitModels
    from oprd.calibration.rollouts import Rollout

Student = Annotated[str, typer.Option("--student", help="Path or hub id of the student.")]
Teacher = Annotated[str, typer.Option("--teacher", help="Path or hub id of the teacher.")]
Prompts = Annotated[
    str | None, typer.Option("--prompts", help="Prompts, from wherever oprd train reads them.")
]
Rollouts = Annotated[
    Path | None, typer.Option("--rollouts", help="Read the rollouts.jsonl of another fit.")
]
OutputDir = Annotated[
    Path, typer.Option("--output_dir", help="Rollouts, bridge and report; goes on if cut.")
]
Rank = Annotated[int, typer.Option("--rank", help="Dimensions of the shared space.")]
Layers = Annotated[
    str | None,
    typer.Option("--layers", help="Student layers, as in oprd train; default: all, of heads last."),
]
LayerPairing = Annotated[
    str,
    typer.Option("--layer_pairing", help="The teacher layers that they meet, as in oprd train."),
]
Positions = Annotated[str, typer.Option("--positions", help="all, last, first_k or last_k.")]
PositionK = Annotated[int, typer.Option("--position_k", help="How many, for first_k and last_k.")]
BasisName = Annotated[
    str,
    typer.Option(
        "--basis",
        help="Directions: pca, rrr, fisher, heads for the last layers alone, or pca+heads.",
    ),
]
HeadsMetricName = Annotated[
    str, typer.Option("--heads_metric", help="Of heads: centered, prior or fisher.")
]
HeadsRank = Annotated[
    int | None, typer.Option("--heads_rank", help="Of heads; default: all directions there are.")
]
Ridge = Annotated[
    float | None, typer.Option("--ridge", help="Default: the best on held-out rows, by layer.")
]
MaxPrompts = Annotated[
    int | None,
    typer.Option(
        "--max_prompts", help="Rollouts to write; default: the paper's 2000, of heads alone 128."
    ),
]
MaxRows = Annotated[int | None, typer.Option("--max_rows", help="Read no more rows than this.")]
MaxCompletionLength = Annotated[
    int, typer.Option("--max_completion_length", help="Length limit of a rollout.")
]
Temperature = Annotated[float, typer.Option("--temperature", help="Of the rollouts.")]
TopP = Annotated[float, typer.Option("--top_p", help="Of the rollouts.")]
TopK = Annotated[int, typer.Option("--top_k", help="Of the rollouts; 0 for all tokens.")]
MinP = Annotated[float, typer.Option("--min_p", help="Of the rollouts.")]
RepetitionPenalty = Annotated[float, typer.Option("--repetition_penalty", help="Of the rollouts.")]
ChatTemplateKwargs = Annotated[
    str | None,
    typer.Option("--chat_template_kwargs", help="JSON for the chat template, as in oprd train."),
]
TeacherTokenizer = Annotated[
    str, typer.Option("--teacher_tokenizer", help="Whose tokens it reads: student's, or its own.")
]
SpecialTokens = Annotated[
    str | None,
    typer.Option("--teacher_special_tokens", help="JSON: its token by the student's."),
]
TeacherTemplateKwargs = Annotated[
    str | None,
    typer.Option("--teacher_chat_template_kwargs", help="JSON for its own chat template."),
]
Seed = Annotated[int, typer.Option("--seed", help="Of the rollouts and a task's prompts.")]
BatchSize = Annotated[int, typer.Option("--batch_size", help="Rollouts written or read at once.")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto is the checkpoints' own.")]
BadRows = Annotated[
    str, typer.Option("--bad_rows", help="error, or skip and count, bad rows of a file.")
]
LongPrompts = Annotated[
    str, typer.Option("--long_prompts", help="error, or drop, prompts without room.")
]
PromptColumn = Annotated[
    str | None, typer.Option("--prompt_column", help="Where the prompts are, as in oprd train.")
]

app = typer.Typer(help="Bridges between models of different depth and width.")


@app.callback()
def bridges() -> None:
    """Bridges between models of different depth and width."""


@app.command()
@one_sentence
def fit(
    student: Student,
    teacher: Teacher,
    prompts: Prompts = None,
    rollouts: Rollouts = None,
    output_dir: OutputDir = Path("runs/bridge"),
    rank: Rank = 8,
    layers: Layers = None,
    layer_pairing: LayerPairing = "proportional",
    positions: Positions = "last_k",
    position_k: PositionK = 2000,
    basis: BasisName = "pca",
    heads_metric: HeadsMetricName = "centered",
    heads_rank: HeadsRank = None,
    ridge: Ridge = None,
    max_prompts: MaxPrompts = None,
    max_rows: MaxRows = None,
    max_completion_length: MaxCompletionLength = 512,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    chat_template_kwargs: ChatTemplateKwargs = None,
    teacher_tokenizer: TeacherTokenizer = "student",
    teacher_special_tokens: SpecialTokens = None,
    teacher_chat_template_kwargs: TeacherTemplateKwargs = None,
    seed: Seed = 0,
    batch_size: BatchSize = 8,
    dtype: Dtype = "auto",
    bad_rows: BadRows = "error",
    long_prompts: LongPrompts = "error",
    prompt_column: PromptColumn = None,
) -> None:
    """Fit a bridge on the student's rollouts and report how well it carries.

    Under `accelerate launch -m oprd bridge fit …` every process writes and reads its share.
    """
    check_transformers()
    from oprd.calibration.bridge.settings import FitSettings
    from oprd.core.bridge.bases import HEADS, usual_prompts
    from oprd.models.sampling import Sampling
    from oprd.values import check_choice, parse_layers, parse_mapping

    layers = layers or ("last" if basis == HEADS else "all")
    settings = FitSettings(
        rank=rank,
        basis=basis,
        heads_metric=cast(Any, heads_metric),  # checked by FitSettings
        heads_rank=heads_rank,
        ridge=ridge,
        layers=parse_layers(layers),
        layer_pairing=layer_pairing,
        positions=cast(Any, positions),  # likewise
        position_k=position_k,
        max_rows=max_rows,
        batch_size=batch_size,
        seed=seed,
    )
    sampling = Sampling(
        1, temperature, top_p, max_completion_length, seed, top_k, min_p, repetition_penalty
    )
    template_options = parse_mapping("chat_template_kwargs", chat_template_kwargs)
    check_choice("teacher_tokenizer", teacher_tokenizer, ("student", "own"))
    given = {
        "special_tokens": parse_mapping("teacher_special_tokens", teacher_special_tokens),
        "own_options": parse_mapping("teacher_chat_template_kwargs", teacher_chat_template_kwargs),
    }
    reads_own = teacher_tokenizer == "own"
    if not reads_own and any(given.values()):
        raise ValueError(
            "--teacher_special_tokens and --teacher_chat_template_kwargs are for a teacher that "
            "reads its own tokens: add --teacher_tokenizer own."
        )
    if (prompts is None) == (rollouts is None):
        raise ValueError("give --prompts to write rollouts, or --rollouts to read those of a fit.")
    if long_prompts not in ("error", "drop"):
        raise ValueError(f"--long_prompts must be 'error' or 'drop', got {long_prompts!r}.")
    with setting_up():
        folder = _check_names(student, teacher, output_dir)
        dataset = _load(
            prompts,
            student,
            template_options,
            bad_rows=bad_rows,
            max_prompts=usual_prompts(basis) if max_prompts is None else max_prompts,
            seed=seed,
            prompt_column=prompt_column,
        )
        models = _load_models(student, teacher, dtype, settings, own_tokens=reads_own, **given)
    if dataset is not None:
        drop = long_prompts == "drop"
        found, drawn = models.write_rollouts(
            dataset,
            sampling,
            folder,
            drop=drop,
            batch_size=batch_size,
            template_options=template_options,
        )
    else:
        found, drawn = models.reuse_rollouts(cast(Path, rollouts))
    _fit(models, found, drawn, settings, folder)


def _check_names(student: str, teacher: str, output_dir: Path) -> Path:
    """The folder to write to, once it can be used and both models are there."""
    from oprd.models.load import find_model
    from oprd.runs.record import check_output_dir

    folder = check_output_dir(str(output_dir))
    for name, what in ((student, "student"), (teacher, "teacher")):
        find_model(name, what)
    return folder


def _load(
    prompts: str | None, student: str, template_options: dict[str, Any] | None, **options: Any
) -> "Dataset | None":
    """The prompts that the student's chat template takes, if rollouts are to be written."""
    from oprd.models.load import load_tokenizer, resolve_model
    from oprd.models.prompt import template_check
    from oprd.prompts.load import load_prompts

    if prompts is None:
        return None
    tokenizer = load_tokenizer(resolve_model(student, "student", contents=False))
    return load_prompts(prompts, check=template_check(tokenizer, template_options), **options)


def _load_models(
    student: str, teacher: str, dtype: str, settings: "FitSettings", **reads: Any
) -> "FitModels":
    """Both models, of which such a fit is possible."""
    import torch
    from accelerate import PartialState
    from transformers.utils import logging

    from oprd.calibration.bridge.fit import check_fit
    from oprd.calibration.models import FitModels
    from oprd.core.bridge.bases import reads_heads
    from oprd.models.matching import layers_read
    from oprd.models.probe import check_readable

    logging.disable_progress_bar()
    # Before models are loaded: it decides which device each process loads them to.
    PartialState(cpu=not torch.accelerator.is_available())
    models = FitModels.load(student, teacher, dtype, **reads)
    both = models.student, models.teacher
    check_fit(*both, settings)
    chosen = layers_read(*both, settings.layers, settings.layer_pairing)
    heads = reads_heads(settings.basis)
    for role, model, layers in zip(("student", "teacher"), both, chosen, strict=True):
        check_readable(model, role, layers, heads=heads, one_width=True)
    return models


def _fit(
    models: "FitModels",
    rollouts: "list[Rollout]",
    drawn: dict[str, Any] | None,
    settings: "FitSettings",
    folder: Path,
) -> None:
    from accelerate import PartialState

    from oprd.calibration.bridge.fit import fit_bridge

    fitted = fit_bridge(
        models.student,
        models.teacher,
        rollouts,
        settings,
        provenance={**models.provenance, "rollouts": drawn},
        folder=folder,
        teach=models.teach,
        common=models.common,
    )
    if PartialState().is_main_process:
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
