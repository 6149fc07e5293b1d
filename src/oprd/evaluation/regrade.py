"""Grade many responses, fresh ones and those of a file that was written before."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from oprd.evaluation.grading import Grade
from oprd.evaluation.records import final_grade, read_records, rewrite_records
from oprd.evaluation.tasks.base import Problem, Task, problems_hash
from oprd.evaluation.thoughts import open_thought
from oprd.runs.rowfile import locked

THREADS = 4
# Wall time for any grader. math-verify has its own, shorter limit and is killed at it; a Python
# grader that hangs is left behind in its thread.
LIMIT = 120.0
# A response's text, its problem, and the tag of the thought that its prompt left open.
Answer = tuple[str, Problem, str]


def grade_all(
    task: Task, answers: Sequence[tuple[str, Problem] | Answer], limit: float = LIMIT
) -> list[Grade]:
    """Grade responses, several at once.

    A grader that raises or does not return costs its own answer only.

    Raises:
        ImportError: the grader needs a package that is not installed.
    """

    def grade(answer: tuple[str, Problem] | Answer) -> Grade:
        text, problem, *thought = answer
        return _within(limit, lambda: task.verdict(text, problem, *thought))

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(grade, answers))


def regrade(path: Path, task: Task) -> int:
    """Grade the responses of a file again, without a model, and write it anew.

    Args:
        path: a file of records.
        task: the task they were drawn for.

    Returns:
        How many verdicts changed.

    Raises:
        ValueError: the file is broken or belongs to another task.
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
    grades = grade_all(
        task,
        [(r.text, problems[r.problem], t) for r, t in zip(records, thoughts, strict=True)],
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


def _within(seconds: float, grade: Callable[[], Grade]) -> Grade:
    """The grade, or a timeout. A daemon does not keep the program from ending."""
    found: list[Grade | ImportError] = []

    def run() -> None:
        try:
            found.append(grade())
        except ImportError as error:
            found.append(error)
        except Exception:  # a user's grader may raise anything
            found.append(Grade(False, "parse_error"))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        return Grade(False, "timeout")
    if isinstance(found[0], ImportError):
        raise found[0]
    return found[0]
