"""Problems that chat templates take: one may refuse a system message, or an order of roles."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from oprd.evaluation.tasks.base import Problem, Task
from oprd.evaluation.tasks.files import BadRows
from oprd.models.prompt import render_prompt

logger = logging.getLogger(__name__)


def rendered(
    tokenizer: Any, task: Task, problem: Problem, **template_options: Any
) -> tuple[str, list[int]]:
    """A problem's prompt as a model reads it, see `render_prompt`.

    Raises:
        ValueError: the template refuses it; the message names the problem.
    """
    try:
        return render_prompt(tokenizer, problem.prompt, **template_options)
    except ValueError as error:
        raise ValueError(f"{task.name}, problem {problem.id!r}: {error}.") from error


def readable(task: Task, tokenizers: Mapping[str, Any], bad_rows: BadRows = "error") -> Task:
    """A task whose problems every model's chat template takes, the same for all of them.

    Args:
        task: what is asked.
        tokenizers: by their model's name.
        bad_rows: `"error"` stops at the first problem that is refused, `"skip"` leaves those out
            and says in a log how many.

    Raises:
        ValueError: a problem is refused, or none is left.
    """
    good, refused = [], []
    for problem in task.problems:
        refusals = [
            f"{model}: {said}"
            for model, tokenizer in tokenizers.items()
            if (said := _refusal(tokenizer, task, problem))
        ]
        if not refusals:
            good.append(problem)
        elif bad_rows == "error":
            raise ValueError(f"{refusals[0]} Leave such problems out (oprd eval: --bad_rows skip).")
        refused += refusals[:1]
    if not refused:
        return task
    if not good:
        raise ValueError(f"no problem of {task.name} is left, the first is refused: {refused[0]}")
    logger.warning(
        "%d of the %d problems of %s left out. %s",
        len(refused),
        len(task.problems),
        task.name,
        refused[0],
    )
    return replace(task, problems=tuple(good))


def _refusal(tokenizer: Any, task: Task, problem: Problem) -> str | None:
    try:
        rendered(tokenizer, task, problem)
    except ValueError as error:
        return str(error)
    return None
