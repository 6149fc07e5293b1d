"""Does a task's grader accept every gold answer, and refuse it when it is changed?"""

from dataclasses import dataclass
from decimal import MAX_PREC, localcontext
from typing import NamedTuple

from oprd.evaluation.answers import parse_words
from oprd.evaluation.graders import Grader
from oprd.evaluation.grading import Grade
from oprd.evaluation.quantities import parse_number, strip_outer
from oprd.evaluation.tasks.base import Task
from oprd.evaluation.typography import plain_latex

# Gold answers that a message shows.
SHOWN = 3


class Refused(NamedTuple):
    """A gold answer that does not grade itself correct, and the grade that it got."""

    gold: str
    grade: Grade

    @property
    def reason(self) -> str:
        """Why, as far as the grade says."""
        extracted = self.grade.extracted
        found = "no answer found" if extracted is None else f"read as {extracted!r}"
        return f"{self.gold!r} ({self.grade.status}, {found})"


@dataclass(frozen=True)
class SelfTest:
    """Gold answers on which the grader is wrong.

    Attributes:
        problems: how many were tried.
        refused: gold answers that do not grade themselves correct, with their grades.
        accepted: gold answers whose changed form grades correct.
    """

    problems: int
    refused: list[Refused]
    accepted: list[str]

    @property
    def passed(self) -> bool:
        """Whether the grader was right every time."""
        return not self.refused and not self.accepted

    @property
    def report(self) -> str:
        """What is wrong, with examples."""
        parts = []
        if self.refused:
            reasons = ", ".join(refused.reason for refused in self.refused[:SHOWN])
            parts.append(
                f"{len(self.refused)} of {self.problems} gold answers are refused, for example "
                f"{reasons} (does `respond` state an answer as `grade` reads it?)"
            )
        if self.accepted:
            parts.append(
                f"the changed forms of {len(self.accepted)} of {self.problems} gold answers are "
                f"accepted, for example of {', '.join(map(repr, self.accepted[:SHOWN]))}"
            )
        return "; ".join(parts)


def self_test(task: Task) -> SelfTest:
    """Grade every gold answer of a task as it is and changed.

    Raises:
        GraderError: the grader cannot grade the first one.
    """
    grader = Grader(task)
    same = grader.grade([(task.respond(p.gold), p) for p in task.problems])
    other = grader.grade([(task.respond(changed(p.gold)), p) for p in task.problems])
    golds = [problem.gold for problem in task.problems]
    return SelfTest(
        problems=len(golds),
        refused=[
            Refused(gold, grade)
            for gold, grade in zip(golds, same, strict=True)
            if not grade.correct
        ],
        accepted=[gold for gold, grade in zip(golds, other, strict=True) if grade.correct],
    )


def changed(gold: str) -> str:
    """Another answer: a number plus one, words with one more, a formula plus one."""
    plain = plain_latex(gold)
    number = parse_number(plain)
    if number is not None:
        # At full precision: Decimal's default would round a long number back to itself.
        with localcontext(prec=MAX_PREC):
            return f"{number + 1:f}"
    words = parse_words(plain)
    return rf"\text{{not {words}}}" if words is not None else f"{strip_outer(plain)}+1"
