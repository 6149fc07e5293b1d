"""Worked sums of six to ten two-digit numbers, whose steps carry an early slip to the end.

`37+85+12+44+91+20=` to `37+85=122;122+12=134;134+44=178;178+91=269;269+20=289`.
"""

import random

from lab import sums
from lab.splits import held_out
from oprd.evaluation.tasks.arithmetic import Split

ALPHABET = sums.ALPHABET
TERMS = range(6, 11)
# Nine steps of `891+99=990;`, the last of which has the end of the response for its semicolon.
LONGEST_RESPONSE = (max(TERMS) - 1) * len("891+99=990;")
# With the prompt, of three characters a term.
CONTEXT = LONGEST_RESPONSE + 3 * max(TERMS)
SAMPLES = {"reported": 4, "tuning": 2, "curve": 1}

answer, grade = sums.answer, sums.grade


def examples(split: Split, count: int, seed: int) -> list[tuple[str, str]]:
    """Different problems of one split, as prompt and solution."""
    rng = random.Random(f"chains/{split}/{seed}")
    found: dict[str, str] = {}
    while len(found) < count:
        numbers = tuple(rng.randint(10, 99) for _ in range(rng.choice(TERMS)))
        prompt = "+".join(map(str, numbers)) + "="
        if held_out(prompt) == (split == "test"):
            found[prompt] = sums.solution(numbers)
    return list(found.items())


def prompts(seed: int = 0) -> list[dict[str, str]]:
    """Held-out problems; those of two seeds may share some."""
    return [{"prompt": p, "answer": answer(s)} for p, s in examples("test", 250, seed)]


def terms(prompt: str) -> int:
    """How many numbers a problem adds up."""
    return prompt.count("+") + 1
