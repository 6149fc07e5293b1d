"""Worked sums of two or three two-digit numbers: `37+85+12=` to `37+85=122;122+12=134`."""

from oprd.evaluation.grading import Grade
from oprd.evaluation.tasks import arithmetic

ALPHABET = "0123456789+=;"
# What a vocabulary is learned within: a number, or a sign.
PIECES = r"\d+|[+=;]"
LONGEST_RESPONSE = 21
SAMPLES = {"reported": 8, "tuning": 4, "curve": 2}


def examples(split: arithmetic.Split, count: int, seed: int) -> list[tuple[str, str]]:
    """Different problems of one split, as prompt and solution."""
    drawn = arithmetic.problems(split, count, seed, subtraction=False)
    return [("+".join(map(str, p.terms)) + "=", solution(p.terms)) for p in drawn]


def answer(solution: str) -> str:
    """What is graded in a solution: the last sum."""
    return solution.rpartition("=")[2]


def prompts(seed: int = 0) -> list[dict[str, str]]:
    """Held-out problems; those of two seeds may share some."""
    return [{"prompt": p, "answer": answer(s)} for p, s in examples("test", 250, seed)]


def grade(text: str, gold: str) -> Grade:
    """Right where the last sum is; how it was reached does not count."""
    found = answer(text)
    return Grade.of(found == gold, found) if found else Grade(False, "no_box")


def solution(terms: tuple[int, ...]) -> str:
    """Terms added one at a time, each step written out."""
    total, *rest = terms
    steps = []
    for term in rest:
        steps.append(f"{total}+{term}={total + term}")
        total += term
    return ";".join(steps)
