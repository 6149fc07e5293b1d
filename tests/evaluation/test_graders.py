"""Graders of one's own: what they may return, and what becomes of one that fails."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from oprd.cli.main import app
from oprd.evaluation.graders import Grader, GraderError
from oprd.evaluation.grading import Grade
from oprd.evaluation.records import final_grade
from oprd.evaluation.result import Evaluation
from oprd.evaluation.selftest import self_test
from oprd.evaluation.table import rows_and_notes, to_json
from oprd.evaluation.tasks import arithmetic
from oprd.evaluation.tasks.base import Task
from oprd.evaluation.tasks.load import load_task
from tests import tiny
from tests.evaluation.samples import evaluation

PROBLEMS = arithmetic.load(count=3).problems
GRADE = "from oprd.evaluation.grading import Grade\n"


def task(grade: Callable[[str, str], Any]) -> Task:
    return Task("own", PROBLEMS, arithmetic.load(count=3).template, grade, "g", "s")


def graded(grade: Callable[[str, str], Any], *texts: str, limit: float = 60) -> list[Grade]:
    return Grader(task(grade), limit).grade([(text, PROBLEMS[0]) for text in texts])


NUMBERS = (int, float, Fraction, Decimal, np.int64, np.float32)


@pytest.mark.parametrize("kind", [bool, np.bool_, *NUMBERS, lambda right: Grade.of(right, None)])
def test_a_grader_returns_a_grade_or_a_truth_value_or_a_number(kind: Callable[[bool], Any]) -> None:
    found = graded(lambda text, gold: kind(text == "right"), "right", "no", "right")
    assert found == [Grade.of(right, None) for right in (True, False, True)]
    assert {type(grade.correct) for grade in found} == {bool}


def test_what_a_grade_holds_is_brought_into_the_form_of_a_file() -> None:
    (found,) = graded(lambda text, gold: Grade(np.bool_(True), "correct", 5), "x")
    assert found == Grade(True, "correct", "5") and type(found.correct) is bool


class Own(Exception):
    pass


def raising(error: BaseException) -> Callable[[str, str], Any]:
    def grade(text: str, gold: str) -> Any:
        raise error

    return grade


@pytest.mark.parametrize(
    ("grade", "what"),
    [
        (raising(ValueError("no number")), r"raised ValueError: no number \(test_graders.py, line"),
        (raising(ZeroDivisionError()), r"raised ZeroDivisionError \(test_graders"),
        (raising(Own("mine")), "raised Own: mine"),
        (raising(SystemExit(3)), "raised SystemExit: 3"),
        (lambda text: True, "raised TypeError: .* takes 1 positional argument"),
        (lambda text, gold: None, "returned None, which is neither a Grade"),
        (lambda text, gold: "correct", "returned 'correct'"),
        (lambda text, gold: 0.5, "returned 0.5"),
        (lambda text, gold: float("nan"), "returned nan"),
        (lambda text, gold: (True, "5"), r"returned \(True, '5'\)"),
        (lambda text, gold: Grade(True, "fine"), "returned Grade.*a known status"),
    ],
)
def test_a_grader_that_cannot_grade_its_first_answer_stops_everything(
    grade: Callable[..., Any], what: str
) -> None:
    calls = []

    def counted(*arguments: str) -> Any:
        calls.append(arguments)
        return grade(*arguments)

    start = "the answer is " + "5" * 46
    with pytest.raises(GraderError) as raised:
        graded(counted, start + "!", "6", "7", "8")
    assert len(calls) == 1
    assert raised.match(rf"^the grader of task 'own' {what}")
    expected = f"on problem {PROBLEMS[0].id!r}, whose response begins with '{start}'…: mend the"
    assert expected in str(raised.value)


def odd(text: str, gold: str) -> Any:
    if text == "hang":
        time.sleep(3)
    return {"crash": lambda: 1 / 0, "none": lambda: None}.get(text, lambda: text == gold)()


def test_later_a_grader_that_hangs_or_crashes_costs_one_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    right = PROBLEMS[0].gold
    for texts in (["0", "crash", "hang", right, "none"], ["hang", "crash", "0", right]):
        statuses = {"hang": "timeout", "0": "wrong", right: "correct"}
        with caplog.at_level(logging.WARNING):
            found = graded(odd, *texts, limit=0.5)
        assert [g.status for g in found] == [statuses.get(t, "grader_error") for t in texts]
    # Once for each task, of whichever came first.
    assert caplog.text.count("Such answers are counted as grader_error") == 2


def test_a_grader_is_new_only_once() -> None:
    grader = Grader(task(odd))
    grader.grade([("0", PROBLEMS[0])])
    assert grader.grade([("crash", PROBLEMS[0])])[0].status == "grader_error"


def test_a_missing_package_is_not_taken_for_a_wrong_answer() -> None:
    def grade(text: str, gold: str) -> Grade:
        if text == "5":
            raise ImportError("needs x")
        return Grade.of(False, text)

    with pytest.raises(ImportError, match="needs x"):
        graded(grade, "4", "5")


@pytest.mark.parametrize("status", ["timeout", "grader_error"])
def test_a_cut_response_does_not_hide_that_the_grader_failed(status: Any) -> None:
    assert final_grade(Grade(False, status), "length").status == status
    assert final_grade(Grade(False, "wrong", "5"), "length").status == "truncated"


def test_the_table_counts_apart_what_was_not_graded() -> None:
    good = evaluation({"a": [True, True]}, model="good")
    bad = evaluation({"a": [True, False]}, model="bad")
    for status, row in (("timeout", "0 / 1"), ("grader_error", "1 / 0")):
        first, second = bad.records
        failed = Evaluation(bad.header, [first, replace(second, status=status)])
        rows, _ = rows_and_notes([good, failed])
        names = [name for name, *_ in rows]
        assert f"  {status}" not in names
        assert ["not graded, grader_error / timeout", "–", row] in rows
        assert to_json([failed])["evaluations"][0]["figures"]["statuses"][status] == 1
    assert not any(name.startswith("not graded") for name, *_ in rows_and_notes([good])[0])


# A task file, and what its grader is.
TASKS = {
    "truth": "def grade(text, gold):\n    return len(text) >= 0",
    "number": "import numpy\ndef grade(text, gold):\n    return numpy.float64(len(text) >= 0)",
    "raises": "def grade(text, gold):\n    return golds[gold]\ngolds = {}",
    "none": "def grade(text, gold):\n    print('called', end='')",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny.model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def run(model: str, name: str, folder: Path, *more: str) -> tuple[int, str]:
    path = folder / f"graded_{name}.py"
    path.write_text(f'{TASKS[name]}\nprompts = [{{"prompt": "a?", "answer": "b"}}] * 3\n')
    drawing = ("--samples", "2", "--max_new_tokens", "4", "--output_dir", str(folder / "out"))
    arguments = ["eval", "--model", model, "--tasks", str(path), *drawing, *more]
    found = CliRunner().invoke(app, arguments)
    return found.exit_code, found.output


@pytest.mark.parametrize("name", ["truth", "number"])
def test_oprd_eval_takes_truth_values_and_numbers(name: str, model: str, tmp_path: Path) -> None:
    code, printed = run(model, name, tmp_path)
    assert code == 0, printed
    assert "Avg@2" in printed and "100.0%" in printed and "not graded" not in printed


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("raises", "raised KeyError: 'b' (graded_raises.py, line 2)"),
        ("none", "returned None"),
    ],
)
def test_oprd_eval_stops_at_the_first_answer_that_cannot_be_graded(
    name: str, what: str, model: str, tmp_path: Path
) -> None:
    code, printed = run(model, name, tmp_path)
    assert code == 1
    last = printed.splitlines()[-1]
    assert f"oprd: the grader of task 'graded_{name}' {what}" in last
    assert "on problem '0', whose response begins with" in last
    assert printed.count("called") == (name == "none")


def test_a_self_test_says_why_gold_answers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "self_tested.py"
    path.write_text(
        GRADE + "prompts = [{'prompt': str(n), 'answer': str(n)} for n in range(5)]\n"
        "def grade(text, gold):\n"
        "    if text == r'\\boxed{0}':\n"
        "        return Grade(False, 'no_box')\n"
        "    return Grade.of(False, text[7:-1] + '?')\n"
    )
    found = self_test(load_task(str(path)))
    assert found.report == (
        "5 of 5 gold answers are refused, for example '0' (no_box, no answer found), "
        "'1' (wrong, read as '1?'), '2' (wrong, read as '2?') "
        "(does `respond` state an answer as `grade` reads it?)"
    )
    arguments = ["eval", "--model", "./nowhere", "--tasks", str(path), "--self_test"]
    printed = CliRunner().invoke(app, [*arguments, "--output_dir", str(tmp_path / "out")])
    # Before the model is looked for.
    assert f"self-test of self_tested: {found.report}." in printed.output


def test_a_self_test_of_a_grader_that_raises_is_its_sentence() -> None:
    with pytest.raises(GraderError, match="raised Own: mine"):
        self_test(task(raising(Own("mine"))))
