"""Every promise has tests, every one of them can fail, and the page says so."""

import ast
import re
import subprocess
import sys
from functools import cache

import pytest

from tests.reliability.page import PAGE, page_of, read_results
from tests.reliability.promises import PROMISES, PROOFS
from tests.reliability.undone import ROOT, run_tests

# How a test fails of itself, and not because what is undone cannot be called.
OF_A_TEST = {"AssertionError", "Failed"}
ALL = [promise for promises in PROMISES.values() for promise in promises]


@cache
def functions(file: str) -> set[str]:
    """The tests of a file, by name."""
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("promise", ALL, ids=lambda promise: promise.fault)
def test_the_tests_of_a_promise_are_there_and_one_of_them_is_proven(promise):
    assert promise.tests and promise.proofs
    for test in (*promise.tests, *(proof.red.partition("[")[0] for proof in promise.proofs)):
        file, _, name = test.partition("::")
        assert name in functions(file), test


def proven(proof):
    # What takes both cores, or its time, runs with the slow ones.
    marks = [pytest.mark.slow(minutes=proof.minutes)] if proof.minutes else []
    return pytest.param(PROOFS.index(proof), id=proof.red.partition("::test_")[2], marks=marks)


@pytest.mark.parametrize("number", map(proven, PROOFS))
def test_a_promise_that_is_not_kept_turns_its_test_red(number, tmp_path):
    proof = PROOFS[number]
    outcomes = run_tests([proof.node], tmp_path / "undone", proof=number).outcomes
    failed = {kind for kind in outcomes.values() if kind not in ("passed", "skipped")}
    assert failed, f"passes with {', '.join(proof.undone)} undone: {outcomes}"
    assert proof.error == "*" or failed & ({proof.error} if proof.error else OF_A_TEST), failed


def test_a_proof_whose_test_passes_would_be_seen(tmp_path):
    node = "tests/runs/test_atomic.py::test_a_file_has_the_mode_that_the_umask_gives"
    assert set(run_tests([node], tmp_path / "whole").outcomes.values()) == {"passed"}


def test_the_page_is_that_of_the_promises():
    text = PAGE.read_text()
    assert page_of(read_results(text)) == text, "run make reliability"


@pytest.mark.parametrize("promise", ALL, ids=lambda promise: promise.fault)
def test_every_promise_of_the_page_was_kept_when_it_was_made(promise):
    """What cannot be measured here is skipped by its test, and the page says how often."""
    result = read_results(PAGE.read_text())[promise.fault]
    assert re.fullmatch(r"[1-9]\d* passed(, \d+ skipped)?", result), "run make reliability"


APART = """
import anyio, sys
from pathlib import Path
from tests.reliability.page import run_apart
print(run_apart(sys.argv[2:], Path(sys.argv[1])))
"""


@pytest.mark.slow(minutes=0.3)
def test_the_tests_of_promises_run_whatever_was_imported_before(tmp_path):
    file = "tests/runs/test_atomic.py"
    names = ["test_after_an_error_nothing_half_written_is_left",
             "test_a_file_has_the_mode_that_the_umask_gives"]  # fmt: skip
    nodes = [f"{file}::{name}" for name in names]
    command = [sys.executable, "-c", APART, str(tmp_path), *nodes]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    outcomes = ast.literal_eval(done.stdout.strip().splitlines()[-1])
    assert outcomes == {
        f"{file}::{name}": "passed"
        for name in (names[0], *(f"{names[1]}[{case}]" for case in ("18-420", "7-432", "63-384")))
    }, done.stderr


# --- what the README and the pages that took its parts claim -------------------------------------

# What a sentence says that is a claim about what happens when something goes wrong.
SAFETY = re.compile(
    r"\b(kill\w*|crash\w*|damaged?|corrupt\w*|disk is full|bit[- ]identical\w*|"
    r"checkpoint is complete|goes on (from|after)|resum\w+|never|nothing is lost|secrets?|safe\w*|"
    r"refused?|trusted)\b"
)
TEST = re.compile(
    r"\[[^\]]*\]\((?:\.\./)*"
    r"(?P<path>tests/[^)#]+|(?:docs/)?reliability\.md|SECURITY\.md)[^)]*\)"
)
CLAIMING = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("start", "decide", "faq", "results")),
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
]
PLACES = (ROOT, ROOT / "docs")


def claims(text):
    """Paragraphs and items of a list, without code, that claim safety."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    parts = re.split(r"\n\s*\n|\n(?=[-*] )", prose)
    return [part.strip() for part in parts if SAFETY.search(re.sub(r"\]\([^)]*\)", "]", part))]


CLAIMS = [(page.name, claim) for page in CLAIMING for claim in claims(page.read_text())]


@pytest.mark.parametrize(("page", "claim"), CLAIMS)
def test_every_claim_about_safety_points_at_a_test(page, claim):
    found = list(TEST.finditer(claim))
    assert found, "link the test, reliability.md or SECURITY.md beside the claim"
    assert all(any((place / match["path"]).is_file() for place in PLACES) for match in found)


def test_a_claim_without_a_test_would_be_seen():
    text = "It trains.\n\nA killed run\ngoes on.\n\n- Fast\n- never lies ([tested](tests/a.py))"
    found = claims(text)
    assert found == ["A killed run\ngoes on.", "- never lies ([tested](tests/a.py))"]
    assert [bool(TEST.search(claim)) for claim in found] == [False, True]
