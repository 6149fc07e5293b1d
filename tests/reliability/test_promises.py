"""Every promise has tests, every one of them can fail, and the page says so."""

import ast
from functools import cache
from pathlib import Path

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
def test_no_promise_of_the_page_is_red(promise):
    assert "failed" not in read_results(PAGE.read_text())[promise.fault], "run make reliability"


def test_every_claim_of_the_readme_about_safety_names_its_page():
    assert "docs/reliability.md" in Path(ROOT / "README.md").read_text()
