"""Five made-up words in order: ` tako mesilu bari tuna dofe =` to ` bari dofe mesilu tako tuna`.

A language of many tokens: a vocabulary of byte pairs over it holds most of its words whole.
"""

import itertools
import random
from functools import cache

from lab.splits import held_out
from oprd.evaluation.grading import Grade
from oprd.evaluation.tasks.arithmetic import Split

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
ALPHABET = "".join(sorted(CONSONANTS + VOWELS)) + " ="
# What a vocabulary is learned within: a word with the space before it.
PIECES = r" [a-z]+"
LEXICON, WORDS = 2000, 5
# In tokens; a word that no token holds has three at most.
LONGEST_RESPONSE = 3 * WORDS + 1
SAMPLES = {"reported": 8, "tuning": 4, "curve": 2}


@cache
def lexicon() -> tuple[str, ...]:
    """The words, of two or three syllables."""
    syllables = ["".join(pair) for pair in itertools.product(CONSONANTS, VOWELS)]
    rng = random.Random("words")
    drawn: dict[str, None] = {}
    while len(drawn) < LEXICON:
        drawn["".join(rng.choices(syllables, k=rng.choice((2, 3))))] = None
    return tuple(drawn)


def examples(split: Split, count: int, seed: int) -> list[tuple[str, str]]:
    """Different problems of one split, as prompt and solution."""
    rng = random.Random(f"words/{split}/{seed}")
    found: dict[str, str] = {}
    while len(found) < count:
        words = rng.sample(lexicon(), WORDS)
        prompt = _joined(words) + " ="
        if held_out(prompt) == (split == "test"):
            found[prompt] = _joined(sorted(words))
    return list(found.items())


def prompts(seed: int = 0) -> list[dict[str, str]]:
    """Held-out problems; those of two seeds may share some."""
    return [{"prompt": p, "answer": s} for p, s in examples("test", 250, seed)]


def grade(text: str, gold: str) -> Grade:
    """Right where every word is in its place."""
    return Grade.of(text == gold, text) if text else Grade(False, "empty")


def _joined(words: list[str]) -> str:
    return "".join(f" {word}" for word in words)
