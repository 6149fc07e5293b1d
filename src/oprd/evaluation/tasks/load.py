"""A task from the name that a user gives."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from oprd.evaluation.tasks import arithmetic, custom, mathematics, reasoning
from oprd.evaluation.tasks.base import Task
from oprd.evaluation.tasks.files import BadRows
from oprd.files import SUFFIXES

Split = arithmetic.Split

ARITHMETIC: dict[str, Callable[[Split, int, int], Task]] = {
    "arithmetic": arithmetic.load,
    "additions": partial(arithmetic.load, subtraction=False),
}
GYM = "reasoning_gym:"
FORMS = (
    f"{', '.join(ARITHMETIC)}; {', '.join(mathematics.BENCHMARKS)}; {GYM}NAME; NAME=FILE or a "
    ".parquet, .jsonl, .json or .csv file; a .py file or python:MODULE with `prompts` and `grade`"
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


def is_generated(name: str) -> bool:
    """Whether a name is that of a task that makes its problems, as many as are asked for."""
    return name in ARITHMETIC or (name.startswith(GYM) and name != GYM)


def generate_task(name: str, split: Split, count: int, seed: int = 0) -> Task:
    """Make the problems of one split of a task. The splits share none.

    Raises:
        ValueError: the name, the split or a number is not one the task knows.
        ImportError: reasoning-gym is needed and not installed.
    """
    if name in ARITHMETIC:
        return ARITHMETIC[name](split, count, seed)
    return reasoning.load(name.removeprefix(GYM), split, count, seed)


def _load(name: str, limit: int | None, bad_rows: BadRows) -> Task:
    kind, _, rest = name.partition(":")
    label, equals, file = name.partition("=")
    if name in ARITHMETIC:
        return generate_task(name, "test", 500)
    if is_generated(name):
        return generate_task(name, "test", limit or 100)
    if name in mathematics.BENCHMARKS:
        return mathematics.load_benchmark(name)
    if kind == "python" and rest:
        return custom.load(rest)
    if equals and label and file:
        return mathematics.load_file(label, Path(file).expanduser(), bad_rows)
    if name.endswith(".py"):
        return custom.load(name)
    if name.lower().endswith(SUFFIXES):
        return mathematics.load_file(
            Path(name).name.partition(".")[0], Path(name).expanduser(), bad_rows
        )
    raise ValueError(f"task {name!r} is unknown. A task is: {FORMS}.")
