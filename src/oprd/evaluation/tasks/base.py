"""What a task is: problems with gold answers, a template, and a grader."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from oprd.evaluation.grading import Grade, as_grade
from oprd.models.prompt import Prompt

Verdict = Grade | bool | int | float


@dataclass(frozen=True)
class Template:
    """How a problem's text becomes a prompt.

    Attributes:
        text: the prompt, with `{problem}` where the problem's text goes.
        version: raised with every change of the text, for people; the hash is for machines.
        chat: whether the prompt is the message of a user rather than plain text.
    """

    text: str
    version: int = 1
    chat: bool = True

    def __post_init__(self) -> None:
        if "{problem}" not in self.text:
            raise ValueError(f"a template holds {{problem}}, got {self.text!r}.")

    @property
    def hash(self) -> str:
        """The first 12 hexadecimal digits of the SHA-256 of the form and the text."""
        return hashlib.sha256(f"{self.chat}\n{self.text}".encode()).hexdigest()[:12]

    def render(self, problem: str) -> Prompt:
        """The prompt for one problem. Braces in the problem are left alone."""
        text = self.text.replace("{problem}", problem)
        return [{"role": "user", "content": text}] if self.chat else text


@dataclass(frozen=True)
class Problem:
    """One problem of a task.

    Attributes:
        id: unique within the task and the same from run to run.
        prompt: what a model is asked, with the template applied.
        gold: the gold answer.
        extra: what else the grader needs or a reader wants to know.
    """

    id: str
    prompt: Prompt
    gold: str
    extra: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Task:
    """Problems and their grader. The same object feeds evaluation and training prompts.

    Attributes:
        name: as given on the command line.
        problems: in a fixed order.
        template: how the prompts were made.
        grade: text and gold answer to a verdict, a `Grade`, True or False, or 1 or 0; called from
            several threads.
        grader: the grader's name and version.
        source: where the problems come from, with a revision, a hash or a seed.
        respond: a response that states an answer the way `grade` reads it, for the self-test.
        grade_problem: text and problem to a verdict, for graders that need more than the answer.
        sets_thoughts_apart: whether the grader knows thoughts by their tags: where the prompt has
            opened one, it reads the response as if its text began with the tag.
    """

    name: str
    problems: tuple[Problem, ...]
    template: Template
    grade: Callable[[str, str], Verdict]
    grader: str
    source: str
    respond: Callable[[str], str] = lambda answer: rf"\boxed{{{answer}}}"
    grade_problem: Callable[[str, Problem], Verdict] | None = None
    sets_thoughts_apart: bool = False

    def __post_init__(self) -> None:
        if not self.problems:
            raise ValueError(f"task {self.name!r} has no problems ({self.source}).")
        seen: set[str] = set()
        for problem in self.problems:
            if problem.id in seen:
                raise ValueError(f"task {self.name!r} has two problems with id {problem.id!r}.")
            seen.add(problem.id)

    def verdict(self, text: str, problem: Problem, thought: str = "") -> Grade:
        """The grade of a response to one problem.

        Args:
            text: as it was generated.
            problem: what was asked.
            thought: the tag of a thought that the prompt left open.

        Raises:
            NoVerdict: the grader returned something else than a verdict.
        """
        # An empty response stays empty.
        if self.sets_thoughts_apart and text.strip():
            text = thought + text
        return as_grade(self._judge(text, problem))

    def _judge(self, text: str, problem: Problem) -> Verdict:
        if self.grade_problem is not None:
            return self.grade_problem(text, problem)
        return self.grade(text, problem.gold)

    def first(self, limit: int | None) -> "Task":
        """The task with its first `limit` problems, or all of them for None.

        Raises:
            ValueError: the limit is below 1.
        """
        if limit is None:
            return self
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}.")
        return replace(self, problems=self.problems[:limit])

    def rows(self) -> list[dict[str, Any]]:
        """Rows for `datasets.Dataset.from_list`: `prompt` in TRL's plain or chat form, `answer`."""
        return [{"prompt": p.prompt, "answer": p.gold} for p in self.problems]


def problems_hash(problems: Sequence[Problem]) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of every id, prompt and gold answer."""
    content = json.dumps([(p.id, p.prompt, p.gold) for p in problems])
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def prompt_text(prompt: Prompt) -> str:
    """What a prompt asks: its text, or the last of its messages."""
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def shared_prompts(first: Task, second: Task) -> list[Prompt]:
    """The prompts that stand in both tasks: empty where training and evaluation are disjoint."""
    known = {prompt_text(problem.prompt) for problem in first.problems}
    return [problem.prompt for problem in second.problems if prompt_text(problem.prompt) in known]
