"""The clock of README and docs/cost.md is that of the runs that are committed."""

import math
import runpy

import pytest

from tests.docs.workshop import ROOT

CLOCK = runpy.run_path(str(ROOT / "benchmarks" / "clock.py"))


def run(*curve, spent=0.0):
    """One whose teacher solves everything; points are seconds and what is solved."""
    points = [[step, *point] for step, point in enumerate(curve, 1)]
    return {"before": 0.0, "teacher": 1.0, "curve": points, "spent": spent}


def test_between_two_evaluations_accuracy_is_a_straight_line():
    assert CLOCK["reached"](run((10.0, 0.4), (20.0, 0.6), (30.0, 1.0))) == pytest.approx(25.0)
    assert CLOCK["reached"](run((10.0, 1.0))) == pytest.approx(8.0)


def test_a_run_that_is_never_there_has_no_time_and_its_budget_is_the_least_it_takes():
    never = run((50.0, 0.5), (100.0, 0.7), spent=100.0)
    beside = run((10.0, 0.8))
    assert CLOCK["reached"](never) is None
    assert CLOCK["ratio"]({0: never}, {0: beside}) == "over 10.0"
    lines = CLOCK["table"]({"OPRD": {0: beside}, "slow": {0: never}})
    assert lines[2:] == ["| OPRD | 10 | 1 |", "| slow | over 100 (70%) | over 10.0 |"]


def test_ratios_are_paired_by_seed_with_an_interval_of_their_logarithms():
    runs = {seed: run((10 * math.exp(seed - 1), 0.8)) for seed in range(3)}
    beside = {seed: run((10.0, 0.8)) for seed in range(4)}
    # Their standard error is 3^-½, and 4.303 the 97.5th percentile of Student's t.
    low, high = (math.exp(sign * 4.303 / math.sqrt(3)) for sign in (-1, 1))
    assert CLOCK["ratio"](runs, beside) == f"1.00 [{low:.2f}, {high:.2f}]"


def test_pages_hold_the_table_of_the_committed_runs():
    lines = CLOCK["table"](CLOCK["read"]())
    for page in CLOCK["PAGES"]:
        text = page.read_text(encoding="utf-8")
        assert CLOCK["filled"](text, lines) == text
        assert CLOCK["PICTURE"].name in text
