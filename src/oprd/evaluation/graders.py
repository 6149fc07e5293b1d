"""Answers given to a task's grader: several at once, each within a time limit."""

import logging
import threading
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from oprd.evaluation.grading import Grade, NoVerdict
from oprd.evaluation.tasks.base import Problem, Task

THREADS = 4
# Wall time for any grader. math-verify has its own, shorter limit and is killed at it; a Python
# grader that hangs is left behind in its thread.
LIMIT = 120.0
# How much of a response a message shows.
SHOWN = 60

# A response's text, its problem, and the tag of the thought that its prompt left open.
Answer = tuple[str, Problem, str]

logger = logging.getLogger(__name__)


class GraderError(ValueError):
    """A grader cannot grade; the message names it, the problem, the error and the response."""


class Grader:
    """A task's grader in threads, with a time limit.

    A grader that raises, or returns no verdict, on the first answer that it gets is broken, and
    stops everything. Later that costs its own answer only, which is counted as `"grader_error"`, as
    one without an answer in time always is as `"timeout"`: hours of drawing do not depend on one
    odd response.

    Args:
        task: whose grader it is.
        limit: wall time for each answer, in seconds.
    """

    def __init__(self, task: Task, limit: float = LIMIT) -> None:
        self.task = task
        self._limit = limit
        self._tried = self._warned = False

    def grade(self, answers: Sequence[tuple[str, Problem] | Answer]) -> list[Grade]:
        """Grade answers, in their order.

        Raises:
            GraderError: the very first answer cannot be graded.
            ImportError: the grader needs a package that is not installed.
        """
        # The first alone, so that a broken grader is not called by every thread before it stops.
        alone = 0 if self._tried else 1
        found = [self._grade(answer) for answer in answers[:alone]]
        with ThreadPoolExecutor(THREADS) as threads:
            found += threads.map(self._grade, answers[alone:])
        return found

    def _grade(self, answer: tuple[str, Problem] | Answer) -> Grade:
        text, problem, *thought = answer
        found = within(self._limit, partial(self.task.verdict, text, problem, *thought))
        first, self._tried = not self._tried, True
        if found is None:
            return Grade(False, "timeout")
        if isinstance(found, Grade):
            return found
        if isinstance(found, ImportError):
            raise found
        sentence = self._sentence(found, text, problem)
        if first:
            raise GraderError(f"{sentence}: mend the grader and run again.") from found
        if not self._warned:
            self._warned = True
            logger.warning(f"{sentence}. Such answers are counted as grader_error.")
        return Grade(False, "grader_error")

    def _sentence(self, error: BaseException, text: str, problem: Problem) -> str:
        shown = repr(text[:SHOWN]) + ("…" if len(text) > SHOWN else "")
        what = str(error) if isinstance(error, NoVerdict) else _raised(error)
        return (
            f"the grader of task {self.task.name!r} {what} on problem {problem.id!r}, whose "
            f"response begins with {shown}"
        )


def within(seconds: float, grade: "partial[Grade]") -> Grade | BaseException | None:
    """What a call returns or raises, or None where it takes longer.

    It is left behind in a daemon thread, which does not keep the program from ending.
    """
    found: list[Grade | BaseException] = []

    def run() -> None:
        try:
            found.append(grade())
        except BaseException as error:  # a user's grader may raise anything, SystemExit too
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None


def _raised(error: BaseException) -> str:
    """The error in words, with the line that raised it."""
    *_, last = traceback.extract_tb(error.__traceback__)
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"raised {said} ({Path(last.filename).name}, line {last.lineno})"
