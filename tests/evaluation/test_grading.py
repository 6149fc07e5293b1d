import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from oprd.evaluation import grading, verify
from oprd.evaluation.grading import Grade, check_gold, grade

CASES = [
    json.loads(line)
    for line in Path(__file__).with_name("cases.jsonl").read_text(encoding="utf-8").splitlines()
]
HALF = (r"\boxed{\frac{1}{2}}", "0.5")


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{number}-{case['rule']}" for number, case in enumerate(CASES)]
)
def test_a_case_gets_its_verdict(case: dict) -> None:
    found = grade(case["text"], case["gold"])
    assert (found.correct, found.status) == (case["correct"], case["status"])


def test_the_cases_are_many_and_each_is_there_once() -> None:
    assert len({(case["text"], case["gold"]) for case in CASES}) == len(CASES) >= 150
    assert {case["status"] for case in CASES} == {
        *("correct", "wrong", "no_box", "unterminated", "parse_error", "timeout", "empty")
    }


def test_the_answer_is_kept_as_it_stands() -> None:
    assert grade(r"\boxed{ 1{,}000 \text{ cm} }", "1000").extracted == r"1{,}000 \text{ cm}"
    assert grade(r"\boxed{5", "5").extracted is None


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (r"\boxed{" * 8000, "unterminated"),
        (r"\boxed{" * 4000 + "5" + "}" * 4000, "correct"),
        (r"\boxed{" * 4000 + "}" * 4000, "parse_error"),
        (r"\boxed{5} " * 8000, "correct"),
        (rf"\boxed{{{'9' * 50_000}}}", "wrong"),
        (rf"\boxed{{{'9' * 50_000}@}}", "parse_error"),
        (rf"\boxed{{{'{' * 9000}5{'}' * 9000}}}", "parse_error"),
        (rf"\boxed{{5{' ' * 50_000}x}}", "parse_error"),
        (r"\boxed " * 8000, "no_box"),
        (r"\boxed\frac{" * 8000, "no_box"),
        (r"\boxed 5" + " " * 50_000, "correct"),
        (rf"\boxed{{7 {'ab' * 900}+}}", "parse_error"),
        (rf"\boxed{{{'√(' * 900}7}}", "parse_error"),
        (r"\boxed{" + r"\begin{aligned}" * 120 + "7}", "parse_error"),
    ],
    ids=lambda value: value if len(value) < 20 else value[:12],
)
def test_what_a_model_repeats_without_end_costs_nothing(text: str, status: str) -> None:
    started = time.process_time()
    assert grade(text, "5").status == status
    assert time.process_time() - started < 1


def test_integers_of_any_length_are_compared() -> None:
    digits = "9" * 5000
    assert grade(rf"\boxed{{{digits}}}", digits).correct
    assert not grade(rf"\boxed{{{digits[:-1]}8}}", digits).correct


def test_grades_in_threads() -> None:
    with ThreadPoolExecutor(4) as threads:
        texts = [rf"\boxed{{\frac{{{i}}}{{2}}}}" for i in range(1, 20, 2)]
        found = list(threads.map(lambda text: grade(text, "4.5"), texts))
    assert [g.correct for g in found] == [i == 9 for i in range(1, 20, 2)]


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_grades_in_processes(method: str) -> None:
    assert grade(*HALF).correct
    # Pool workers are daemons, which may not have children of multiprocessing's own.
    with get_context(method).Pool(1) as pool:
        assert pool.apply(grade, HALF) == Grade(True, "correct", r"\frac{1}{2}")
    # A forked child must not have disturbed the worker of its parent.
    assert grade(r"\boxed{\frac{2}{6}}", r"\frac{1}{3}").correct


def test_grades_in_a_plain_script_without_a_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"from oprd.evaluation.grading import grade\nassert grade(*{HALF}).correct\n")
    done = subprocess.run([sys.executable, "-W", "error", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_sixteen_thousand_integers_in_seconds() -> None:
    started = time.perf_counter()
    found = [grade(rf"so it is $\boxed{{{i % 100}}}$.", "7") for i in range(16_000)]
    assert time.perf_counter() - started < 10
    assert sum(g.correct for g in found) == 160


@pytest.mark.parametrize("gold", ["5", "0.5", r"\sqrt{2}"])
@pytest.mark.parametrize("answer", ["9^{9^{9}}", "10^{-10^{10}}", "(10^{10})!", "1.5^{10^{12}}"])
def test_huge_powers_end_with_the_time_limit(gold: str, answer: str) -> None:
    assert verify.verify(gold, answer, 0.2) == "timeout"


def test_a_huge_power_equals_itself() -> None:
    assert grade(r"\boxed{9^{9^{9}}}", "9^{9^{9}}").correct


def test_a_timeout_costs_no_other_answer() -> None:
    with ThreadPoolExecutor(3) as threads:
        hung = threads.submit(verify.verify, "7", "9^{9^{9^{9}}}", 0.5)
        others = [threads.submit(verify.verify, "7", f"\\frac{{{i}}}{{3}}") for i in (21, 22)]
        assert [other.result() for other in others] == ["correct", "wrong"]
        assert hung.result() == "timeout"


def test_a_killed_worker_is_replaced() -> None:
    assert grade(r"\boxed{\sqrt{9}}", "3").correct
    for worker in verify._pool._idle:
        os.kill(worker._process.pid, 9)
    assert grade(r"\boxed{\sqrt{16}}", "4").correct


def test_an_answer_that_kills_every_worker_is_a_parse_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die(*_: object) -> str:
        raise verify.WorkerDied

    monkeypatch.setattr(verify.Worker, "ask", die)
    assert grade(r"\boxed{\sqrt{49}}", "7").status == "parse_error"


def test_math_verify_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    monkeypatch.setattr(verify, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'oprd\[math\]'"):
        verify.Worker()
    assert grade(r"\boxed{12}", "12").correct


@pytest.mark.parametrize("gold", ["", " ", "?", r"\frac{"])
def test_a_gold_answer_that_does_not_parse_is_an_error(gold: str) -> None:
    with pytest.raises(ValueError, match="cannot be parsed"):
        check_gold(gold)


@pytest.mark.parametrize("gold", [r"5 \text{ feet } 6 \text{ inches}", "7 3"])
def test_a_gold_answer_that_does_not_equal_itself_is_an_error(gold: str) -> None:
    assert not grade(rf"\boxed{{{gold}}}", gold).correct
    with pytest.raises(ValueError, match=r"does not equal itself \(wrong\)"):
        check_gold(gold)


@pytest.mark.parametrize("gold", ["-5", "142.0", r"\frac{1}{2}", r"\text{east}", "x=5", r"\$5"])
def test_a_gold_answer_that_parses_passes(gold: str) -> None:
    check_gold(gold)


def test_the_grader_names_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert grading.grader_name().startswith(f"oprd {grading.VERSION}, math-verify ")
