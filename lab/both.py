"""Sums and sorting: a prompt tells by itself which is asked."""

from lab import sorting, sums
from lab.scores import as_reported
from oprd.evaluation.grading import Grade
from oprd.evaluation.tasks.arithmetic import Split

TASKS = {"sums": sums, "sorting": sorting}
ALPHABET = sums.ALPHABET + sorting.ALPHABET.replace("=", "")
LONGEST_RESPONSE = max(task.LONGEST_RESPONSE for task in TASKS.values())
SAMPLES = {"reported": 4, "tuning": 2, "curve": 1}


def task_of(prompt: str) -> str:
    """The name of the task that a prompt asks for."""
    return "sums" if prompt[0].isdigit() else "sorting"


def examples(split: Split, count: int, seed: int) -> list[tuple[str, str]]:
    """Different problems of one split in turn, as prompt and solution."""
    each = [task.examples(split, -(-count // 2), seed) for task in TASKS.values()]
    return [example for pair in zip(*each, strict=True) for example in pair][:count]


def prompts(seed: int = 0) -> list[dict[str, str]]:
    """Held-out problems, those of one task behind those of the other."""
    return [problem for task in TASKS.values() for problem in task.prompts(seed)]


def reported() -> list[str]:
    """The task of each held-out problem, in the order of evaluations."""
    return as_reported([task_of(problem["prompt"]) for problem in prompts()])


def grade(text: str, gold: str) -> Grade:
    """By the task that the right answer is of."""
    return TASKS[task_of(gold)].grade(text, gold)
