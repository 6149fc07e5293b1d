"""Does a task's grader accept every gold answer, and refuse it when it is changed?"""

from dataclasses import dataclass
from decimal import MAX_PREC, localcontext

from oprd.evaluation.answers import parse_number, parse_words, strip_outer
from oprd.evaluation.regrade import grade_all
from oprd.evaluation.tasks.base import Task


@dataclass(frozen=True)
class SelfTest:
    """Gold answers on which the grader is wrong.

    Attributes:
        problems: how many were tried.
        refused: gold answers that do not grade themselves correct.
        accepted: gold answers whose changed form grades correct.
    """

    problems: int
    refused: list[str]
    accepted: list[str]

    @property
    def passed(self) -> bool:
        """Whether the grader was right every time."""
        return not self.refused and not self.accepted


def self_test(task: Task) -> SelfTest:
    """Grade every gold answer of a task as it is and changed."""
    same = grade_all(task, [(task.respond(p.gold), p) for p in task.problems])
    other = grade_all(task, [(task.respond(changed(p.gold)), p) for p in task.problems])
    golds = [problem.gold for problem in task.problems]
    return SelfTest(
        problems=len(golds),
        refused=[gold for gold, grade in zip(golds, same, strict=True) if not grade.correct],
        accepted=[gold for gold, grade in zip(golds, other, strict=True) if grade.correct],
    )


def changed(gold: str) -> str:
    """Another answer: a number plus one, words with one more, a formula plus one."""
    number = parse_number(gold)
    if number is not None:
        # At full precision: Decimal's default would round a long number back to itself.
        with localcontext(prec=MAX_PREC):
            return f"{number + 1:f}"
    if parse_words(gold) is not None:
        return rf"\text{{not {parse_words(gold)}}}"
    return f"{strip_outer(gold)}+1"
