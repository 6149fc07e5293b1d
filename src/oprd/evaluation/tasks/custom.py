"""A user's own task: a Python module or file with `prompts` and `grade(text, gold)`."""

import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, cast

from oprd.evaluation.grading import grade as mathematics_grade
from oprd.evaluation.tasks.base import Problem, Task, Template
from oprd.models.prompt import Prompt

TEMPLATE = Template("{problem}")


def load(entry: str) -> Task:
    """Load a task from a module's name or a Python file. Its code is run.

    `prompts` is a list, or a function that returns one, of rows with `prompt` (text or messages)
    and `answer`. `grade` takes a response's text and the answer, returns a `Grade`, True or False,
    or 1 or 0, and is called from threads.
    `respond(answer)`, a response that states an answer, is optional and enables the self-test;
    `sets_thoughts_apart`, optional too, is that of `Task`.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: there is no such module, or it cannot be imported.
        ValueError: it lacks `prompts` or `grade`, or a row is bad.
    """
    try:
        module = _module(entry)
    except (SyntaxError, ImportError) as error:
        raise ImportError(f"task {entry!r} cannot be imported: {error}.") from error
    prompts: Any = getattr(module, "prompts", None)
    grade: Any = getattr(module, "grade", None)
    if prompts is None or not callable(grade):
        raise ValueError(f"task {entry!r} must define `prompts` and `grade(text, gold)`.")
    rows: list[Any] = list(prompts() if isinstance(prompts, FunctionType) else prompts)
    problems = tuple(_problem(entry, number, row) for number, row in enumerate(rows))
    code = hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()[:12]
    return Task(
        name=Path(entry).stem if entry.endswith(".py") else entry,
        problems=problems,
        template=TEMPLATE,
        grade=cast(Any, grade),
        grader=f"{module.__name__}.grade, sha256 {code}",
        source=f"{Path(entry).name}, sha256 {code}",
        respond=getattr(module, "respond", Task.respond),
        sets_thoughts_apart=getattr(module, "sets_thoughts_apart", grade is mathematics_grade),
    )


def _module(entry: str) -> ModuleType:
    if not entry.endswith(".py"):
        return importlib.import_module(entry)
    path = Path(entry).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"task file {entry!r} does not exist.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickles look their module up by name.
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _problem(entry: str, number: int, row: Any) -> Problem:
    try:
        prompt: Prompt = row["prompt"]
        answer = row["answer"]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"task {entry!r}, row {number}: a row has `prompt` and `answer`, got {row!r}."
        ) from error
    if not prompt or not isinstance(prompt, str | list) or not str(answer).strip():
        raise ValueError(f"task {entry!r}, row {number}: prompt or answer is empty: {row!r}.")
    return Problem(str(number), prompt, str(answer))
