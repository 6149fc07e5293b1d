"""Grade the responses of a file again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from oprd.evaluation.graders import Grader
from oprd.evaluation.records import Record, final_grade, read_records, rewrite_records
from oprd.evaluation.tasks.base import Task, problems_hash
from oprd.evaluation.thoughts import open_thought
from oprd.runs.rowfile import locked


def regrade(path: Path, task: Task) -> int:
    """Grade the responses of a file again, without a model, and write it anew.

    The grader, the gold answers and with them the source may be others than those that the file was
    written with. What the model was asked may not.

    Args:
        path: a file of records.
        task: the task they were drawn for.

    Returns:
        How many verdicts changed.

    Raises:
        ValueError: the file is broken or belongs to another task or other prompts, or the grader
            fails at once.
        OSError: another process writes to it.
    """
    with locked(path):
        return _regrade(path, task)


def _regrade(path: Path, task: Task) -> int:
    header, records = read_records(path)
    for key, value in (("task", task.name), ("template_hash", task.template.hash)):
        if header[key] != value:
            raise ValueError(f"{path} has {key}={header[key]!r}, the task has {value!r}.")
    same_prompts = _same_prompts(header, records, task)
    if header["source"] != task.source and not same_prompts:
        raise ValueError(
            f"{path} has source={header['source']!r}, the task has {task.source!r}, and its "
            "problems are not known to be the same: only the grader and gold answers may change."
        )
    problems = {problem.id: problem for problem in task.problems}
    if unknown := sorted({r.problem for r in records} - problems.keys()):
        raise ValueError(f"{path} holds problems that the task does not have: {unknown[:3]}.")
    # Without a word of its own, a sample was asked as the example in the header was.
    example = open_thought(header["prompt"])
    thoughts = [example if record.thought is None else record.thought for record in records]
    grades = Grader(task).grade(
        [(r.text, problems[r.problem], t) for r, t in zip(records, thoughts, strict=True)]
    )
    regraded = []
    for record, thought, grade in zip(records, thoughts, grades, strict=True):
        grade = final_grade(grade, record.finish_reason)
        regraded.append(
            replace(
                record,
                gold=problems[record.problem].gold,
                extracted=grade.extracted,
                status=grade.status,
                correct=grade.correct,
                thought=thought,
            )
        )
    header |= {"source": task.source, "grader": task.grader}
    if same_prompts:
        header["problems_hash"] = problems_hash(task.problems)
    rewrite_records(path, header, regraded)
    return sum(new.correct != old.correct for new, old in zip(regraded, records, strict=True))


def _same_prompts(header: Mapping[str, Any], records: Sequence[Record], task: Task) -> bool:
    """Whether a file was drawn for a task's problems, their gold answers aside."""
    golds = {record.problem: record.gold for record in records}
    # The header's hash is of prompts and gold answers together: the latter as they were then.
    then = [replace(problem, gold=golds.get(problem.id, problem.gold)) for problem in task.problems]
    return header.get("problems_hash") == problems_hash(then)
