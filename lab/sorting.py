"""Ten letters in order: `qhzaemkcaw=` to `aacehkmqwz`."""

import random
from string import ascii_lowercase

from lab.splits import held_out
from oprd.evaluation.grading import Grade
from oprd.evaluation.tasks.arithmetic import Split

ALPHABET = ascii_lowercase + "="
LETTERS = 10
LONGEST_RESPONSE = LETTERS + 1
SAMPLES = {"reported": 8, "tuning": 4, "curve": 2}


def examples(split: Split, count: int, seed: int) -> list[tuple[str, str]]:
    """Different problems of one split, as prompt and solution."""
    rng = random.Random(f"sorting/{split}/{seed}")
    found: dict[str, str] = {}
    while len(found) < count:
        letters = "".join(rng.choices(ascii_lowercase, k=LETTERS))
        if held_out(letters) == (split == "test"):
            found[letters + "="] = "".join(sorted(letters))
    return list(found.items())


def answer(solution: str) -> str:
    """What is graded in a solution: all of it."""
    return solution


def prompts(seed: int = 0) -> list[dict[str, str]]:
    """Held-out problems; those of two seeds may share some."""
    return [{"prompt": p, "answer": s} for p, s in examples("test", 250, seed)]


def grade(text: str, gold: str) -> Grade:
    """Right where every letter is in its place."""
    return Grade.of(text == gold, text) if text else Grade(False, "empty")
