"""`oprd eval`: models and tasks in, a table with intervals and paired differences out."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from oprd.cli.errors import setting_up
from oprd.supported import check_transformers

if TYPE_CHECKING:
    from oprd.evaluation.result import Evaluation
    from oprd.evaluation.tasks.base import Task
    from oprd.models.sampling import Sampling
    from oprd.runs.record import ModelSource

Tasks = Annotated[
    list[str],
    typer.Option("--tasks", help="Task names or NAME=FILE, comma-separated; repeatable."),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="Path, hub id, adapter, run folder or checkpoint; repeatable."),
]
Run = Annotated[
    Path | None,
    typer.Option("--run", help="A run folder: its teacher, its student before and after."),
]
Samples = Annotated[int, typer.Option("--samples", help="Responses per problem.")]
Temperature = Annotated[float, typer.Option("--temperature", help="0 is greedy, with --samples 1.")]
TopP = Annotated[float, typer.Option("--top_p", help="Nucleus probability mass.")]
MaxNewTokens = Annotated[int, typer.Option("--max_new_tokens", help="Limit of a response.")]
Limit = Annotated[int | None, typer.Option("--limit", help="Only the first so many problems.")]
EngineName = Annotated[str, typer.Option("--engine", help="transformers or vllm.")]
Seed = Annotated[int, typer.Option("--seed", help="Base seed of samples and bootstrap.")]
BatchSize = Annotated[
    int, typer.Option("--batch_size", help="Responses drawn at once by Transformers.")
]
Dtype = Annotated[
    str, typer.Option("--dtype", help="auto is the checkpoint's own, with --run the run's.")
]
BaseModel = Annotated[
    str | None, typer.Option("--base_model", help="What adapters given by --model are loaded on.")
]
Revision = Annotated[
    str | None, typer.Option("--revision", help="Revision of the --model on the hub.")
]
ChatTemplateKwargs = Annotated[
    str | None,
    typer.Option(
        "--chat_template_kwargs",
        help="JSON for the chat template, as in oprd train; with --run the run's.",
    ),
]
OutputDir = Annotated[
    Path | None,
    typer.Option(
        "--output_dir",
        help="Samples and results; a finished part is kept. By default RUN/evaluations for --run, "
        "else evaluations.",
    ),
]
BadRows = Annotated[
    str,
    typer.Option("--bad_rows", "--bad-rows", help="error, or skip and count, bad rows of a file."),
]
Regrade = Annotated[
    bool, typer.Option("--regrade", help="Grade the samples on disk again, without a model.")
]
SelfTest = Annotated[
    bool, typer.Option("--self_test", "--self-test", help="Grade every gold answer first.")
]


def evaluate(
    tasks: Tasks,
    model: Models = None,
    run: Run = None,
    samples: Samples = 16,
    temperature: Temperature = 0.7,
    top_p: TopP = 0.95,
    max_new_tokens: MaxNewTokens = 1024,
    limit: Limit = None,
    engine: EngineName = "transformers",
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    dtype: Dtype = "auto",
    base_model: BaseModel = None,
    revision: Revision = None,
    chat_template_kwargs: ChatTemplateKwargs = None,
    output_dir: OutputDir = None,
    bad_rows: BadRows = "error",
    regrade: Regrade = False,
    self_test: SelfTest = False,
) -> None:
    """Evaluate models, those of --model and of --run, and compare them problem by problem."""
    check_transformers()
    with setting_up():
        from oprd.evaluation.records import sample_file
        from oprd.evaluation.tasks.load import load_task
        from oprd.evaluation.tasks.readable import readable
        from oprd.extras import require
        from oprd.models.sampling import Sampling
        from oprd.runs.record import ModelSource, check_output_dir
        from oprd.values import parse_mapping

        _check_choice("--engine", engine, "transformers", "vllm")
        _check_choice("--bad_rows", bad_rows, "error", "skip")
        sampling = Sampling(samples, temperature, top_p, max_new_tokens, seed)
        options = parse_mapping("chat_template_kwargs", chat_template_kwargs)
        models = [
            ModelSource(name, name, base_model, revision, dtype, options or {})
            for name in model or []
        ]
        if run is not None:
            models += _models_of_run(run, dtype, options)
        names = [name.strip() for given in tasks for name in given.split(",") if name.strip()]
        _check_names([one.name for one in models], names)
        on_bad_rows = cast(Any, bad_rows)
        loaded = [load_task(name, limit=limit, bad_rows=on_bad_rows) for name in names]
        _check_names([one.name for one in models], [task.name for task in loaded])
        folder = check_output_dir(str(output_dir or (run or Path()) / "evaluations"))
        require("scipy.stats", "report", "oprd eval")
        if self_test:
            _self_test(loaded)
        # The last model's absence is not to be found out after hours of the first.
        if not regrade:
            tokenizers = {one.name: _tokenizer(one) for one in models}
            loaded = [readable(task, tokenizers, on_bad_rows) for task in loaded]
    found = []
    for one in models:
        outputs = {task.name: sample_file(folder, one.name, task.name) for task in loaded}
        if regrade:
            found += [_regrade(outputs[task.name], task) for task in loaded]
        else:
            found += _draw(one, engine, batch_size, loaded, sampling, outputs)
    _report(found, folder)


def _models_of_run(run: Path, dtype: str, options: dict[str, Any] | None) -> "list[ModelSource]":
    """The models of a run as it read them, but for what is asked for otherwise."""
    from oprd.runs.record import models_of_run

    given: dict[str, Any] = {} if dtype == "auto" else {"dtype": dtype}
    given |= {} if options is None else {"chat_template_kwargs": options}
    return [replace(model, **given) for model in models_of_run(run)]


def _tokenizer(model: "ModelSource") -> Any:
    from oprd.models.load import find_model, load_tokenizer

    what = "model" if model.name == model.source else model.name
    folder = find_model(model.source, what, model.revision, model.base_model)
    return load_tokenizer(folder, base_model=model.base_model, revision=model.revision)


def _check_choice(option: str, value: str, *choices: str) -> None:
    if value not in choices:
        raise ValueError(f"{option} must be {' or '.join(map(repr, choices))}, got {value!r}.")


def _check_names(models: list[str], tasks: list[str]) -> None:
    if not models:
        raise ValueError("which model? Give --model PATH, or --run FOLDER of a training run.")
    if not tasks:
        raise ValueError("which task? Give --tasks NAME.")
    for what, names in (("model", models), ("task", tasks)):
        if len(set(names)) < len(names):
            raise ValueError(f"a {what} is named twice: {', '.join(names)}.")


def _draw(
    model: "ModelSource",
    engine: str,
    batch_size: int,
    tasks: "list[Task]",
    sampling: "Sampling",
    outputs: dict[str, Path],
) -> "list[Evaluation]":
    """One model on every task; the model is released when this returns."""
    from oprd.evaluation.evaluate import evaluate
    from oprd.models.load import open_engine

    with setting_up():
        opened, identity = open_engine(
            model.source,
            engine=engine,
            base_model=model.base_model,
            revision=model.revision,
            dtype=model.dtype,
            batch_size=batch_size,
        )
    identity["model"] = model.name
    options = model.chat_template_kwargs
    return [
        evaluate(
            opened,
            task,
            sampling,
            identity | _saved(identity["path"], outputs[task.name]),
            outputs[task.name],
            chat_template_kwargs=options,
        )
        for task in tasks
    ]


def _saved(folder: str | None, output: Path) -> dict[str, str | None]:
    """What the weights were saved as, by which a report knows whether a run still has them.

    A file that was begun keeps what it says, an earlier version's nothing: whether it is of the
    same model is told by the weights themselves.
    """
    from oprd.evaluation.records import read_records
    from oprd.runs.record import SAVED, saved_as

    try:
        begun, _ = read_records(output)
    except (ValueError, OSError):
        return {SAVED: saved_as(Path(str(folder)))}
    return {SAVED: begun.get(SAVED)}


def _regrade(path: Path, task: "Task") -> "Evaluation":
    from oprd.evaluation.regrade import regrade
    from oprd.evaluation.result import Evaluation

    if not path.is_file():
        raise FileNotFoundError(f"there are no samples to grade again in {str(path)!r}.")
    changed = regrade(path, task)
    typer.echo(f"{path}: {changed} verdicts changed")
    return Evaluation.from_file(path)


def _self_test(tasks: "list[Task]") -> None:
    from oprd.evaluation.selftest import self_test

    for task in tasks:
        result = self_test(task)
        if not result.passed:
            raise ValueError(f"self-test of {task.name}: {result.report}.")
        typer.echo(f"self-test of {task.name}: {result.problems} gold answers, all as they must be")


def _report(evaluations: "list[Evaluation]", folder: Path) -> None:
    import json

    from rich.console import Console

    from oprd.evaluation.table import print_report, to_json, to_markdown
    from oprd.secrets import masked

    print_report(evaluations, Console())
    figures = masked(json.dumps(to_json(evaluations), indent=2)) + "\n"
    (folder / "results.json").write_text(figures)
    (folder / "results.md").write_text(masked(to_markdown(evaluations)), encoding="utf-8")
    typer.echo(f"results.json, results.md and all samples are in {folder}")
