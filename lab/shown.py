"""Sums, and sums behind their own worked solution, which is then to be written once more.

Who learned both can tell what it cannot yet work out, where the solution is shown to it.
"""

from lab import sums
from oprd.evaluation.tasks.arithmetic import Split

ALPHABET, LONGEST_RESPONSE, SAMPLES = sums.ALPHABET, sums.LONGEST_RESPONSE, sums.SAMPLES
# Of Jinja: what a model reads that is shown a solution.
TEMPLATE = "{{ solution }};{{ prompt }}"
grade = sums.grade


def examples(split: Split, count: int, seed: int) -> list[tuple[str, str]]:
    """Different problems of one split; in training every second one behind its solution."""
    drawn = sums.examples(split, count, seed)
    return [
        (f"{solution};{prompt}" if place % 2 else prompt, solution)
        for place, (prompt, solution) in enumerate(drawn)
    ]


def prompts(seed: int = 0) -> list[dict[str, str]]:
    """The held-out problems of sums, each behind its solution."""
    problems = sums.prompts(seed)
    solutions = dict(sums.examples("test", len(problems), seed))
    return [
        {**problem, "prompt": f"{solutions[problem['prompt']]};{problem['prompt']}"}
        for problem in problems
    ]
