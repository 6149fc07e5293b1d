"""Tasks of reasoning-gym by name: problems without end, each graded by its own scorer."""

from typing import Any, Literal

from oprd.evaluation.grading import Grade
from oprd.evaluation.tasks.base import Problem, Task, Template
from oprd.evaluation.thoughts import answer_part
from oprd.extras import require

Split = Literal["train", "test"]

TEMPLATE = Template(
    "{problem}\n\nThink step by step, then write your final answer between <answer> and </answer>."
)
# reasoning-gym draws item i from seed + i, so that close seeds share most of their problems. The
# splits are a billion apart and the seeds of a split a million.
SPLIT_START: dict[str, int] = {"train": 0, "test": 1_000_000_000}
SEED_STEP = 1_000_000
MAX_SEED = 999
# A task that repeats itself this often has no more problems to give.
DRAWS_PER_PROBLEM = 20


def load(name: str, split: Split = "test", count: int = 500, seed: int = 0) -> Task:
    """Problems of one reasoning-gym task, without duplicates.

    Args:
        name: reasoning-gym's own, such as `chain_sum`.
        split: `"train"` and `"test"` are drawn from ranges of seeds that do not meet.
        count: how many.
        seed: from 0 to 999; different seeds of a split do not meet either.

    Raises:
        ImportError: reasoning-gym is not installed.
        ValueError: the name is unknown, a number is out of range, or the task has fewer problems.
    """
    if split not in SPLIT_START:
        raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
    if not 0 <= seed <= MAX_SEED or not 1 <= count <= SEED_STEP // DRAWS_PER_PROBLEM:
        raise ValueError(
            f"seed must be in 0..{MAX_SEED} and count in 1..{SEED_STEP // DRAWS_PER_PROBLEM}, "
            f"got {seed} and {count}."
        )
    gym: Any = require("reasoning_gym", "tasks", f"task 'reasoning_gym:{name}'")
    try:
        dataset = gym.create_dataset(
            name, size=count * DRAWS_PER_PROBLEM, seed=SPLIT_START[split] + seed * SEED_STEP
        )
    except ValueError as error:
        raise ValueError(f"reasoning-gym has no task {name!r}: {error}") from error

    def grade_problem(text: str, problem: Problem) -> Grade:
        status, answer = extract(text)
        if answer is None:
            return Grade(False, status)
        return Grade.of(dataset.score_answer(answer, problem.extra) == 1, answer)

    def grade(text: str, gold: str) -> Grade:
        raise TypeError(f"reasoning_gym:{name} grades by problem, not by gold answer {gold!r}.")

    return Task(
        name=f"reasoning_gym:{name}",
        problems=_distinct(dataset, count, name),
        template=TEMPLATE,
        grade=grade,
        grader=f"reasoning-gym {gym.__version__}, score of 1",
        source=f"reasoning-gym {gym.__version__}: {split} split, {count} problems, seed {seed}",
        respond="<answer>{}</answer>".format,
        grade_problem=grade_problem,
        sets_thoughts_apart=True,
    )


def extract(text: str) -> tuple[Literal["empty", "no_box", "unterminated", "wrong"], str | None]:
    """The last answer between its tags, stripped; without one, the status that says why."""
    if not text.strip():
        return "empty", None
    _, opened, rest = answer_part(text).rpartition("<answer>")
    if not opened:
        return "no_box", None
    answer, closed, _ = rest.partition("</answer>")
    if not closed:
        return "unterminated", None
    return ("wrong", answer.strip()) if answer.strip() else ("no_box", None)


def _distinct(dataset: Any, count: int, name: str) -> tuple[Problem, ...]:
    found: dict[str, Problem] = {}
    for entry in dataset:
        question = entry["question"]
        if question not in found:
            prompt = TEMPLATE.render(question)
            gold = str(entry["answer"])
            found[question] = Problem(str(len(found)), prompt, gold, extra=entry)
        if len(found) == count:
            return tuple(found.values())
    raise ValueError(
        f"reasoning_gym:{name} gave only {len(found)} different problems out of {len(dataset)}: "
        f"ask for at most {len(found)}."
    )
