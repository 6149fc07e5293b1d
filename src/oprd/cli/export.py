"""`oprd export`: a run's student as a plain Transformers folder, with its model card."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from oprd.cli.errors import setting_up
from oprd.supported import check_transformers
from oprd.text import one_line

# The student as the run left it.
LAST = "last"
RunFolderPath = Annotated[Path, typer.Argument(help="The run folder.")]
Output = Annotated[Path, typer.Argument(help="The folder to make.")]
Which = Annotated[
    str, typer.Option("--which", help="last, best, or a checkpoint such as checkpoint-50.")
]
Merge = Annotated[
    bool, typer.Option("--merge/--no-merge", help="Merge an adapter into its base, or keep it.")
]
BaseModel = Annotated[
    str | None, typer.Option("--base_model", help="An adapter's base, if not what it names.")
]
License = Annotated[
    str | None,
    typer.Option(
        "--license",
        help="As the hub writes it, such as apache-2.0; by default the "
        "student's own, where its card is at hand.",
    ),
]
Name = Annotated[str | None, typer.Option("--name", help="What the card calls the model.")]
PushToHub = Annotated[
    str | None, typer.Option("--push_to_hub", help="Upload to this repository, OWNER/NAME.")
]
Private = Annotated[bool, typer.Option("--private", help="Make the repository a private one.")]


def export(
    run: RunFolderPath,
    output: Output,
    which: Which = LAST,
    merge: Merge = True,
    base_model: BaseModel = None,
    license: License = None,
    name: Name = None,
    repository: PushToHub = None,
    private: Private = False,
) -> None:
    """Write a run's student as a plain Transformers folder, with its model card."""
    check_transformers()
    with setting_up():
        from huggingface_hub.utils import validate_repo_id

        from oprd.models.export import export_model, is_adapter
        from oprd.runs.atomic import new_folder
        from oprd.runs.folder import read_run

        if repository is not None:
            validate_repo_id(repository)
        found = read_run(run)
        if not found.record:
            raise FileNotFoundError(f"{str(run)!r}: {found.note} Name the folder of a run.")
        source = _source(run, which)
        student = found.record.get("student")
        license = license or _license(student)
        options = found.settings.get("model_init_kwargs") or {}
        with new_folder(output):
            notes = export_model(
                source,
                output,
                original=student,
                revision=options.get("revision"),
                base=base_model,
                merge=merge,
            )
            evaluations, left_out = _evaluations(found, source, is_last=which == LAST)
            notes += left_out
            _write_card(found, source, output, license, name, repository, evaluations)
    kind = "adapter" if is_adapter(output) else "model"
    typer.echo(f"The {kind} of {one_line(source)}, with its tokenizer and card: {one_line(output)}")
    for note in notes:
        typer.echo(one_line(note))
    if license is None:
        typer.echo("The card names no licence: give it with --license.")
    if repository is not None:
        from huggingface_hub import HfApi

        with setting_up():
            api = HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=output)
        typer.echo(f"Uploaded to {repository}.")


def _source(run: Path, which: str) -> Path:
    """The folder of a run's student.

    Raises:
        FileNotFoundError: the run has no such one, or it holds no model.
    """
    from oprd.models.load import resolve_model
    from oprd.runs.checkpoints import numbered
    from oprd.runs.record import BEST

    kept = [BEST] if (run / BEST).is_dir() else []
    there = [LAST, *kept, *(path.name for _, path in numbered(run))]
    if which not in there:
        raise FileNotFoundError(
            f"{str(run)!r} holds no student {which!r}: --which takes {', '.join(there)}."
        )
    return Path(resolve_model(str(run if which == LAST else run / which), "student"))


def _evaluations(found: Any, source: Path, *, is_last: bool) -> tuple[tuple[str, ...], list[str]]:
    """Those that tell of this student, what it began with and the teacher, as Markdown.

    Returns:
        them, and in sentences which cannot be shown.
    """
    from oprd.reports.evaluations import AFTER, STEP, read_evaluations, task_tables
    from oprd.reports.markdown import evaluation

    step = _step(source, found.step)

    def tells(model: str) -> bool:
        saved = STEP.fullmatch(model)
        return int(saved[1]) <= step if saved else is_last or model != AFTER

    complete, left_out = read_evaluations(found.path)
    kept = [e for e in complete if tells(str(e.header["model"]))]
    return tuple(map(evaluation, task_tables(kept, 0))), left_out


def _write_card(
    found: Any,
    source: Path,
    output: Path,
    license: str | None,
    name: str | None,
    hub_id: str | None,
    evaluations: tuple[str, ...],
) -> None:
    from oprd.models.export import is_adapter
    from oprd.runs.card import CardFacts, card_text, save_card

    record, step = found.record, _step(source, found.step)
    facts = CardFacts(
        steps=step,
        dataset=record.get("dataset"),
        prompts=record.get("prompts"),
        chat=_is_chat(record, output),
        adapter=is_adapter(output),
        name=name,
        hub_id=hub_id,
        tags=("trl", "oprd"),
        license=license,
        evaluations=evaluations,
    )
    metrics = [line for line in found.metrics if line["step"] <= step]
    save_card(output, card_text(record, metrics, facts, output.resolve().name))


def _step(source: Path, last: int) -> int:
    """The update after which a student was saved."""
    from oprd.runs.checkpoints import CHECKPOINT
    from oprd.runs.record import read_best_record

    if checkpoint := CHECKPOINT.fullmatch(source.name):
        return int(checkpoint[1])
    best = read_best_record(source)
    return last if best is None else best["step"]


def _is_chat(record: Any, output: Path) -> bool:
    """Whether it was trained on messages; where that is not recorded, whether it has a template."""
    told = record.get("chat")
    if isinstance(told, bool):
        return told
    config = output / "tokenizer_config.json"
    return (output / "chat_template.jinja").is_file() or (
        config.is_file() and "chat_template" in json.loads(config.read_text())
    )


def _license(student: Any) -> str | None:
    """The licence that the student's own card names, where it stands beside the student."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    card = Path(str(student)) / "README.md"
    if not student or not card.is_file():
        return None
    try:
        found = ModelCard.load(card).data.to_dict().get("license")
    except (ValueError, YAMLError):
        return None
    return found if isinstance(found, str) else None
