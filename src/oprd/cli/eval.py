"""`oprd eval`: models and tasks in, a table with intervals and paired differences out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from oprd.evaluation.evaluate import Evaluation
    from oprd.evaluation.sampling import Sampling
    from oprd.evaluation.tasks.base import Task


def evaluate(
    model: Annotated[
        list[str],
        typer.Option(
            "--model", help="Path, hub id, adapter, run folder or checkpoint; repeatable."
        ),
    ],
    tasks: Annotated[
        list[str],
        typer.Option("--tasks", help="Task names or NAME=FILE, comma-separated; repeatable."),
    ],
    samples: Annotated[int, typer.Option("--samples", help="Responses per problem.")] = 16,
    temperature: Annotated[
        float, typer.Option("--temperature", help="0 is greedy, with --samples 1.")
    ] = 0.7,
    top_p: Annotated[float, typer.Option("--top_p", help="Nucleus probability mass.")] = 0.95,
    max_new_tokens: Annotated[
        int, typer.Option("--max_new_tokens", help="Length limit of a response.")
    ] = 1024,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Only the first so many problems.")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="transformers or vllm.")] = "transformers",
    seed: Annotated[int, typer.Option("--seed", help="Base seed of samples and bootstrap.")] = 0,
    batch_size: Annotated[
        int, typer.Option("--batch_size", help="Responses drawn at once by Transformers.")
    ] = 32,
    dtype: Annotated[str, typer.Option("--dtype", help="auto is the checkpoint's own.")] = "auto",
    base_model: Annotated[
        str | None, typer.Option("--base_model", help="What adapters are loaded on.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Revision of a model on the hub.")
    ] = None,
    output_dir: Annotated[
        Path, typer.Option("--output_dir", help="Samples and results; a finished part is kept.")
    ] = Path("evaluations"),
    bad_rows: Annotated[
        str, typer.Option("--bad-rows", help="error, or skip and count, bad rows of a file.")
    ] = "error",
    regrade: Annotated[
        bool, typer.Option("--regrade", help="Grade the samples on disk again, without a model.")
    ] = False,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Grade every gold answer first; stop if one fails.")
    ] = False,
) -> None:
    """Evaluate models: Avg@n with intervals, and paired differences between them."""
    from oprd.evaluation.sampling import Sampling
    from oprd.evaluation.tasks.load import load_task

    if bad_rows not in ("error", "skip"):
        raise ValueError(f"--bad-rows must be 'error' or 'skip', got {bad_rows!r}.")
    if engine not in ("transformers", "vllm"):
        raise ValueError(f"--engine must be 'transformers' or 'vllm', got {engine!r}.")
    sampling = Sampling(samples, temperature, top_p, max_new_tokens, seed)
    names = [name for given in tasks for name in given.split(",") if name]
    loaded = [load_task(name, limit=limit, bad_rows=bad_rows) for name in names]
    files = {
        (m, task.name): _sample_file(output_dir, m, task.name) for m in model for task in loaded
    }
    if len(files) < len(model) * len(loaded):
        raise ValueError(f"a model or a task is named twice in {model} and {names}.")
    output_dir.mkdir(parents=True, exist_ok=True)
    if self_test:
        _self_test(loaded)
    if regrade:
        found = [_regrade(files[m, task.name], task) for m in model for task in loaded]
    else:
        found = []
        for name in model:
            options = {
                "engine": engine,
                "base_model": base_model,
                "revision": revision,
                "dtype": dtype,
                "batch_size": batch_size,
            }
            outputs = {task.name: files[name, task.name] for task in loaded}
            found += _run(name, options, loaded, sampling, outputs)
    _report(found, output_dir)


def _run(
    name: str,
    options: dict,
    tasks: "list[Task]",
    sampling: "Sampling",
    outputs: dict[str, Path],
) -> "list[Evaluation]":
    """One model on every task; the model is released when this returns."""
    from oprd.evaluation.evaluate import evaluate as run
    from oprd.evaluation.models import open_engine

    engine, identity = open_engine(name, **options)
    return [run(engine, task, sampling, identity, outputs[task.name]) for task in tasks]


def _regrade(path: Path, task: "Task") -> "Evaluation":
    from oprd.evaluation.evaluate import Evaluation
    from oprd.evaluation.regrade import regrade

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
            raise ValueError(
                f"self-test of {task.name}: {len(result.refused)} of {result.problems} gold "
                f"answers are refused, for example {result.refused[:3]}, and changed ones of "
                f"{result.accepted[:3]} are accepted."
            )
        typer.echo(f"self-test of {task.name}: {result.problems} gold answers, all as they must be")


def _report(evaluations: "list[Evaluation]", output_dir: Path) -> None:
    import json

    from rich.console import Console

    from oprd.evaluation.table import print_report, to_json, to_markdown

    print_report(evaluations, Console())
    (output_dir / "results.json").write_text(json.dumps(to_json(evaluations), indent=2) + "\n")
    (output_dir / "results.md").write_text(to_markdown(evaluations), encoding="utf-8")
    typer.echo(f"results.json, results.md and all samples are in {output_dir}")


def _sample_file(output_dir: Path, model: str, task: str) -> Path:
    return output_dir / _file_name(model) / f"{_file_name(task)}.jsonl"


def _file_name(name: str) -> str:
    """A name as part of a path: readable where it is simple, unique where it is not."""
    import hashlib
    import re

    simple = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._")[-80:]
    if simple and simple == name:
        return simple
    return f"{simple or 'unnamed'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
