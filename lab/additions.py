"""Sums in words, for a pretrained model: `What is 42 + 48?`, `42 + 48 = 90. The answer is 90.`."""

from oprd.evaluation.tasks import arithmetic

# The longest worked solution has 35 tokens of SmolLM2, the end token included.
LONGEST_RESPONSE = 40
SAMPLES = {"reported": 2, "tuning": 1, "curve": 1}
# Those that rates are chosen on are fewer than those that are reported.
HELD_OUT, TUNING = 200, 64

grade = arithmetic.grade


def examples(split: arithmetic.Split, count: int, seed: int) -> list[tuple[str, str]]:
    """Different problems of one split, as prompt and solution."""
    return [(p.prompt, p.solution) for p in _problems(split, count, seed)]


def prompts(seed: int = 0) -> list[dict[str, str]]:
    """Held-out problems; those of two seeds may share some."""
    count = TUNING if seed else HELD_OUT
    return [{"prompt": p.prompt, "answer": p.answer} for p in _problems("test", count, seed)]


def _problems(split: arithmetic.Split, count: int, seed: int) -> list[arithmetic.Problem]:
    return arithmetic.problems(split, count, seed, subtraction=False)
