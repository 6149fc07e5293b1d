"""Grade the responses of a file again."""

from dataclasses import replace
from pathlib import Path

from oprd.evaluation.graders import Grader
from oprd.evaluation.records import final_grade, read_records, rewrite_records
from oprd.evaluation.tasks.base import Task, problems_hash
from oprd.evaluation.thoughts import open_thought
from oprd.runs.rowfile import locked


def regrade(path: Path, task: Task) -> int:
    """Grade the responses of a file again, without a model, and write it anew.

    Args:
        path: a file of records.
        task: the task they were drawn for.

    Returns:
        How many verdicts changed.

    Raises:
        ValueError: the file is broken or belongs to another task, or the grader fails at once.
        OSError: another process writes to it.
    """
    with locked(path):
        return _regrade(path, task)


def _regrade(path: Path, task: Task) -> int:
    header, records = read_records(path)
    for key, value in (("task", task.name), ("source", task.source)):
        if header.get(key) != value:
            raise ValueError(f"{path} has {key}={header.get(key)!r}, the task has {value!r}.")
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
    header |= {"grader": task.grader}
    if "problems_hash" in header and problems.keys() == {record.problem for record in records}:
        header["problems_hash"] = problems_hash(task.problems)
    rewrite_records(path, header, regraded)
    return sum(new.correct != old.correct for new, old in zip(regraded, records, strict=True))
