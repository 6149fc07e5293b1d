"""A task from the name that a user gives."""

from pathlib import Path

from oprd.evaluation.tasks import arithmetic, custom, mathematics, reasoning
from oprd.evaluation.tasks.base import Task
from oprd.evaluation.tasks.files import BadRows

FORMS = (
    f"arithmetic; {', '.join(mathematics.BENCHMARKS)}; reasoning_gym:NAME; NAME=FILE or a "
    ".parquet, .jsonl or .json file; a .py file or python:MODULE with `prompts` and `grade`"
)


def load_task(name: str, *, limit: int | None = None, bad_rows: BadRows = "error") -> Task:
    """Load a task for evaluation.

    Args:
        name: one of `FORMS`.
        limit: only the first so many problems.
        bad_rows: what to do with bad rows of a file.

    Raises:
        ValueError: the name has none of the forms, or the task's data is bad.
        OSError: a file or a data set cannot be read.
        ImportError: an optional dependency or a module is missing.
    """
    return _load(name, limit, bad_rows).first(limit)


def _load(name: str, limit: int | None, bad_rows: BadRows) -> Task:
    kind, _, rest = name.partition(":")
    label, equals, file = name.partition("=")
    suffix = Path(name).suffix
    if name == "arithmetic":
        return arithmetic.load()
    if name in mathematics.BENCHMARKS:
        return mathematics.load_benchmark(name)
    if kind == "reasoning_gym" and rest:
        return reasoning.load(rest, count=limit or 100)
    if kind == "python" and rest:
        return custom.load(rest)
    if equals and label and file:
        return mathematics.load_file(label, Path(file).expanduser(), bad_rows)
    if suffix == ".py":
        return custom.load(name)
    if suffix in (".parquet", ".jsonl", ".json"):
        return mathematics.load_file(Path(name).stem, Path(name).expanduser(), bad_rows)
    raise ValueError(f"task {name!r} is unknown. A task is: {FORMS}.")
