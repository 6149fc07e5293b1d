"""How good the lab's models are, on problems that none of them was trained on.

Learning rates are chosen on other problems than those that are reported.
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from oprd.evaluation.evaluate import evaluate_model
from oprd.evaluation.tasks.base import Problem, Task, prompt_text
from oprd.evaluation.tasks.load import load_task

Scores = dict[str, dict[str, Any]]
T = TypeVar("T")
PARTS = ("reported", "tuning")


def samples(task: str) -> dict[str, int]:
    """Responses a problem, by what they are for: those of `PARTS`, and the "curve" by step."""
    return importlib.import_module(task).SAMPLES


def scores(model: Path, task: str, file: Path, counts: Mapping[str, int]) -> Scores:
    """The figures of a model, from the file that keeps them or else into it.

    Args:
        model: its folder.
        task: a module of the lab, such as `lab.sums`.
        file: JSON, complete or absent.
        counts: responses a problem, by part.

    Returns:
        `accuracy`, `best` (of all samples), `distinct_4`, `length` (tokens) and `problems` (the
        accuracy on each), for those of the `reported` and the `tuning` problems that are counted.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            if not file.exists():
                found = {p: _figures(model, task, p, counts[p]) for p in PARTS if p in counts}
                write_whole(file, json.dumps(found, indent=1))
    return json.loads(file.read_text(encoding="utf-8"))


def write_whole(file: Path, text: str) -> None:
    """Write a file that is complete or absent, whenever the process ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(file)


def held_out(task: str, part: str) -> Task:
    """The `reported` problems of a task, or the `tuning` ones, which are none of them."""
    reported = load_task(f"python:{task}")
    if part == "reported":
        return reported
    asked = {prompt_text(problem.prompt) for problem in reported.problems}
    rows = importlib.import_module(task).prompts(seed=1)
    others = [row for row in rows if row["prompt"] not in asked]
    problems = (Problem(str(i), row["prompt"], row["answer"]) for i, row in enumerate(others))
    return replace(reported, name=f"{task}, {part}", problems=tuple(problems))


def as_reported(values: Sequence[T]) -> list[T]:
    """What there is of each held-out problem as evaluations report it: by its number as text."""
    return [values[number] for number in sorted(range(len(values)), key=str)]


def _figures(model: Path, task: str, part: str, count: int) -> dict[str, Any]:
    evaluation = evaluate_model(
        str(model),
        None,
        held_out(task, part),
        samples=count,
        max_new_tokens=importlib.import_module(task).LONGEST_RESPONSE,
        batch_size=512,
        progress=False,
    )
    summary = evaluation.summary
    return {
        "accuracy": summary.average.value,
        "best": summary.best.value,
        # Of tokens: a solution is one word. Where no response has four of them there are none.
        "distinct_4": summary.distinct[4] or 0.0,
        "length": summary.length["all"].mean or 0.0,
        "problems": evaluation.averages().tolist(),
    }
