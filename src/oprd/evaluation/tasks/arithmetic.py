"""Sums of two or three two-digit numbers, which a small pretrained model cannot do and can learn.

Each problem belongs to one split by a hash of its own text, so that the splits are disjoint
whatever the seeds and the sizes are.
"""

import hashlib
import random
import re
from dataclasses import dataclass
from typing import Literal

from oprd.evaluation.grading import Grade
from oprd.evaluation.tasks import base

Split = Literal["train", "test"]

TEMPLATE = "What is {expression}?\n"
# One problem in this many is held out.
TEST_SHARE = 10
# The bound keeps a babbled number within what `int` converts.
# There are some two million; drawing different ones gets slow long before the last.
MAX_PROBLEMS = 100_000
ANSWER = re.compile(r"The answer is (-?[0-9]{1,30})\.")


@dataclass(frozen=True)
class Problem:
    """One problem: signed terms of two digits each, no partial sum below zero."""

    terms: tuple[int, ...]

    @property
    def expression(self) -> str:
        """The problem as text, for example `47 + 86 - 29`."""
        first, *rest = self.terms
        return str(first) + "".join(f" {'-' if t < 0 else '+'} {abs(t)}" for t in rest)

    @property
    def prompt(self) -> str:
        """What a model is asked."""
        return TEMPLATE.format(expression=self.expression)

    @property
    def answer(self) -> str:
        """The gold answer."""
        return str(sum(self.terms))

    @property
    def solution(self) -> str:
        """The worked solution: one partial sum a sentence, then the answer."""
        total, *rest = self.terms
        steps = []
        for term in rest:
            step = f"{total} {'-' if term < 0 else '+'} {abs(term)}"
            total += term
            steps.append(f"{step} = {total}.")
        return " ".join([*steps, f"The answer is {total}."])

    @property
    def split(self) -> Split:
        """The split that the problem belongs to, a function of its text alone."""
        digest = hashlib.sha256(self.expression.encode()).digest()
        return "test" if int.from_bytes(digest[:8], "big") % TEST_SHARE == 0 else "train"


def problems(split: Split, count: int, seed: int, subtraction: bool = True) -> list[Problem]:
    """`count` different problems of one split, the same for the same seed.

    Without `subtraction` every term is added.

    Raises:
        ValueError: `count` is out of range, or `split` is not one of the two.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
    if not 0 <= count <= MAX_PROBLEMS:
        raise ValueError(f"count must be from 0 to {MAX_PROBLEMS:,}, got {count:,}.")
    rng = random.Random(f"arithmetic/{split}/{seed}")
    found: dict[Problem, None] = {}
    while len(found) < count:
        problem = _draw(rng, subtraction)
        if problem.split == split:
            found.setdefault(problem)
    return list(found)


def extract_answer(text: str) -> str | None:
    """The last stated answer of a response, or None where there is none."""
    answers = ANSWER.findall(text)
    return answers[-1] if answers else None


def grade(text: str, gold: str) -> Grade:
    """Compare the last stated answer with the gold answer, as integers."""
    answer = extract_answer(text)
    if answer is None:
        return Grade(False, "no_box" if text.strip() else "empty")
    return Grade.of(int(answer) == int(gold), answer)


def load(
    split: Split = "test", count: int = 500, seed: int = 0, subtraction: bool = True
) -> base.Task:
    """The task: `count` problems of a split, named by their own text.

    Without `subtraction` every term is added, and the task is called `additions`.

    Raises:
        ValueError: `count` is below 1, or `split` is not one of the two.
    """
    return base.Task(
        name="arithmetic" if subtraction else "additions",
        problems=tuple(
            base.Problem(p.expression, p.prompt, p.answer)
            for p in problems(split, count, seed, subtraction)
        ),
        template=base.Template(TEMPLATE.replace("{expression}", "{problem}"), chat=False),
        grade=grade,
        grader="oprd arithmetic 1",
        source=f"generated: {split} split, {count} problems, seed {seed}",
        respond="The answer is {}.".format,
    )


def _draw(rng: random.Random, subtraction: bool) -> Problem:
    terms = [rng.randint(10, 99)]
    for _ in range(rng.choice((1, 2))):
        size = rng.randint(10, 99)
        subtract = subtraction and rng.random() < 0.5 and sum(terms) >= size
        terms.append(-size if subtract else size)
    return Problem(tuple(terms))
