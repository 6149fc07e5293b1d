"""The demo's task at its easiest: two numbers of two digits, added."""

from oprd.evaluation.tasks import arithmetic, base
from oprd.evaluation.tasks.arithmetic import Problem, Split


def problems(split: Split, count: int, seed: int) -> list[Problem]:
    """Different problems of one split; those with three terms are left out."""
    # About half of what is drawn has two terms; there are 8,100 of these.
    drawn = arithmetic.problems(split, 3 * count + 100, seed, subtraction=False)
    return [problem for problem in drawn if len(problem.terms) == 2][:count]


def task(split: Split, count: int, seed: int) -> base.Task:
    """The same as a task to evaluate on."""
    whole = arithmetic.load(split, 3 * count + 100, seed, subtraction=False)
    wanted = {problem.expression for problem in problems(split, count, seed)}
    kept = tuple(problem for problem in whole.problems if problem.id in wanted)
    return base.Task(
        name="sums of two",
        problems=kept,
        template=whole.template,
        grade=whole.grade,
        grader=whole.grader,
        source=f"{whole.source}, those of two terms",
        respond=whole.respond,
    )
