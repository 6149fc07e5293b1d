"""A thought that the prompt opened: from the rendered prompt to the verdict, and from a file."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from oprd.evaluation.evaluate import evaluate
from oprd.evaluation.grading import Grade, grade
from oprd.evaluation.regrade import regrade
from oprd.evaluation.result import Evaluation
from oprd.evaluation.tasks import reasoning
from oprd.evaluation.tasks.base import Problem, Task, Template
from oprd.evaluation.tasks.files import RawProblem
from oprd.evaluation.tasks.load import load_task
from oprd.evaluation.tasks.mathematics import make_task
from oprd.evaluation.thoughts import TAGS, answer_part, open_thought
from oprd.models.generate import Request, Response
from oprd.models.sampling import Sampling
from tests.evaluation.samples import chat_tokenizer

TASK = make_task("sums", [RawProblem([], "2+3?", "5")], "here")
SAMPLING = Sampling(samples=1, max_new_tokens=20)
UNFINISHED = r"Perhaps \boxed{5}, but let me"
FINISHED = r"Perhaps \boxed{6}. {closing} It is \boxed{5}."


class Answering:
    """An engine that answers everything with one text."""

    name, dtype, context_length = "answering", "none", None

    def __init__(self, text: str, ending: str) -> None:
        self.text, self.tokenizer = text, chat_tokenizer(ending)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Response]]:
        yield [Response(request, [1], self.text, "stop", 0.0) for request in requests]


def drawn(
    text: str, ending: str, task: Task = TASK, output: Path | None = None, **options: object
) -> Evaluation:
    engine = Answering(text, ending)
    identity: dict[str, str | None] = {"model": "m", "revision": None, "weights": None}
    return evaluate(
        engine, task, SAMPLING, identity, output, progress=False, chat_template_kwargs=options
    )


def status(text: str, ending: str, task: Task = TASK, **options: object) -> str:
    return drawn(text, ending, task, **options).records[0].status


@pytest.mark.parametrize(("opening", "closing"), TAGS)
def test_a_box_in_a_thought_that_the_template_opened_is_no_answer(
    opening: str, closing: str
) -> None:
    for ending in (f"assistant: {opening}\n", f"assistant:\n{opening}", f"{opening}\n\n"):
        assert status(UNFINISHED, ending) == "no_box"
        assert status(FINISHED.replace("{closing}", closing), ending) == "correct"
    # Closed by the template already, as with thinking switched off.
    for ending in ("assistant:", f"assistant: {opening}\n\n{closing}\n\n"):
        assert status(UNFINISHED, ending) == "correct"


def test_a_template_that_begins_the_thought_has_opened_it() -> None:
    assert status(UNFINISHED, "assistant: <think>\nOkay, so ") == "no_box"


def test_what_the_template_is_given_decides() -> None:
    ending = "{{ '<think>' if thinking else '' }}"
    assert status(UNFINISHED, ending, thinking=True) == "no_box"
    assert status(UNFINISHED, ending, thinking=False) == "correct"


def test_a_question_that_speaks_of_the_tag_opens_nothing() -> None:
    for question in ("What is <think>?", "<think>\nis a tag. Which?", "Reason in <think> tags."):
        task = make_task("t", [RawProblem([], question, "5")], "here")
        assert status(UNFINISHED, "assistant:", task) == "correct"


@pytest.mark.parametrize(
    ("prompt", "thought"),
    [
        ("2+3?\n<think>", "<think>"),
        ("2+3? [THINK]\n", "[THINK]"),
        ("<|assistant|><reasoning>\nOkay", "<reasoning>"),
        ("<think>no</think>\n<think>\n", "<think>"),
        ("<think></think>", ""),
        ("Write <think> first. 2+3?", ""),
        ("2+3?", ""),
        ("", ""),
    ],
)
def test_a_rendered_prompt_shows_the_thought_at_its_end(prompt: str, thought: str) -> None:
    assert open_thought(prompt) == thought


def test_a_prompt_of_text_opens_thoughts_too() -> None:
    problems = [Problem("a", "2+3? <think>\n", "5"), Problem("b", "2+3?", "5")]
    task = replace(TASK, problems=tuple(problems), template=Template("{problem}", chat=False))
    found = drawn(UNFINISHED, "", task).records
    assert [(r.thought, r.status) for r in found] == [("<think>", "no_box"), ("", "correct")]


def test_answers_between_tags_are_looked_for_outside_the_thought_too() -> None:
    task = reasoning.load("chain_sum", count=1)
    gold = task.problems[0].gold
    assert status(f"<answer>{gold}</answer>", "<think>\n", task) == "no_box"
    assert status(f"x</think><answer>{gold}</answer>", "<think>\n", task) == "correct"
    assert status(f"<answer>{gold}</answer>", "", task) == "correct"


def test_an_empty_response_stays_empty() -> None:
    assert status(" \n", "<think>\n") == "empty"


def test_records_and_graders_of_ones_own_are_given_what_was_generated(tmp_path: Path) -> None:
    seen = []

    def own(text: str, gold: str) -> Grade:
        seen.append(text)
        return Grade.of(True, None)

    task = replace(TASK, grade=own, sets_thoughts_apart=False)
    found = drawn(UNFINISHED, "<think>\n", task, tmp_path / "a.jsonl").records
    assert seen == [found[0].text] == [UNFINISHED]
    assert found[0].thought == "<think>"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from oprd.evaluation.grading import grade", "no_box"),
        ("from oprd.evaluation.grading import grade as g\ngrade = lambda *a: g(*a)", "correct"),
        (
            "from oprd.evaluation.grading import grade as g\ngrade = lambda *a: g(*a)\n"
            "sets_thoughts_apart = True",
            "no_box",
        ),
    ],
)
def test_a_file_says_whether_its_grader_knows_thoughts(
    tmp_path: Path, line: str, expected: str
) -> None:
    path = tmp_path / "thinking_task.py"
    path.write_text(f'{line}\nprompts = [{{"prompt": "2+3? <think>", "answer": "5"}}]\n')
    assert status(UNFINISHED, "", load_task(str(path))) == expected


@pytest.mark.parametrize("ending", ["<think>\n", "assistant: [THINK]", "assistant:"])
def test_grading_again_gives_the_same_verdict(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "a.jsonl"
    records = drawn(UNFINISHED, ending, output=path).records
    assert regrade(path, TASK) == 0
    assert Evaluation.from_file(path).records == records
    # As an earlier version wrote it, which saw no thought: the example in the header shows it.
    first, *rows = map(json.loads, path.read_text().splitlines())
    for row in rows:
        del row["thought"]
        row |= {"correct": True, "status": "correct", "extracted": "5"}
    path.write_text("\n".join(map(json.dumps, [first, *rows])) + "\n")
    assert Evaluation.from_file(path).records[0].thought is None
    assert regrade(path, TASK) == (not records[0].correct)
    assert Evaluation.from_file(path).records == records


def test_thoughts_of_several_kinds_are_passed_over() -> None:
    text = r"<think>a</think>[THINK]\boxed{1}[/THINK]\boxed{2}<reasoning>\boxed{3}"
    assert answer_part(text) == r"\boxed{2}"
    assert grade(r"<thinking>\boxed{2}</thinking>\boxed{3}", "3").correct
