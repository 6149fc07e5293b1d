"""The clock of README and docs/cost.md is that of the runs that are committed."""

import json
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


def test_a_run_that_is_never_there_takes_at_least_until_it_was_last_looked_at():
    never = run((50.0, 0.5), (100.0, 0.7), spent=110.0)
    beside = run((10.5, 0.8))
    assert CLOCK["reached"](never) is None
    # 9.52 times as long, and no more than is known.
    assert CLOCK["ratio"]({0: never}, {0: beside}) == "over 9.5"
    lines = CLOCK["table"]({"OPRD": {0: beside, 1: beside}, "slow": {1: never}})
    assert lines[0] == "|  | seed 0 | seed 1 | of OPRD's time |"
    assert lines[2:] == ["| OPRD | 10 | 10 | 1 |", "| slow |  | over 100 (70%) | over 9.5 |"]


def test_a_summary_has_a_line_a_method_in_which_what_was_never_there_took_longest():
    baseline = {seed: run((seconds, 0.8)) for seed, seconds in enumerate((40.0, 10.0, 30.0, 20.0))}
    slow = {0: run((400.0, 0.5)), 1: run((100.0, 0.7)), 2: run((300.0, 0.6))}
    mixed = {0: run((50.0, 0.5)), 1: run((60.0, 0.8))}
    lines = CLOCK["summary"]({"OPRD": baseline, "slow": slow, "mixed": mixed})
    assert lines[2] == "| OPRD | 4 | 25 | 10 | 40 | 1 |"
    assert lines[4] == "| mixed | 2 | over 50 (50%) | 60 | over 50 (50%) | over 2.7 |"
    assert lines[3] == "| slow | 3 | over 300 (60%) | over 100 (70%) | over 400 (50%) | over 10.0 |"


def test_ratios_are_paired_by_seed_with_an_interval_of_their_logarithms():
    runs = {seed: run((10 * math.exp(seed - 1), 0.8)) for seed in range(3)}
    beside = {seed: run((10.0, 0.8)) for seed in range(4)}
    # Their standard error is 3^-½, and 4.303 the 97.5th percentile of Student's t.
    low, high = (math.exp(sign * 4.303 / math.sqrt(3)) for sign in (-1, 1))
    assert CLOCK["ratio"](runs, beside) == f"1.00 [{low:.2f}, {high:.2f}]"
    assert CLOCK["ratio"]({0: runs[0]}, beside) == f"{math.exp(-1):.2f}"


@pytest.mark.parametrize("beside", [{}, {0: run((10.0, 0.5))}])
def test_what_is_compared_to_a_baseline_that_is_not_there_is_refused(beside):
    with pytest.raises(ValueError, match="OPRD has to be there"):
        CLOCK["ratio"]({0: run((10.0, 1.0))}, beside)


def test_runs_that_rates_were_chosen_by_are_left_out_and_two_of_one_seed_are_refused(tmp_path):
    def line(**key):
        return json.dumps({"key": {"method": "OPRD", "tuning": False, **key}, **run((1.0, 1.0))})

    file = tmp_path / "runs.jsonl"
    assert CLOCK["read"](file) == {}
    file.write_text(f"{line(seed=0)}\n{line(seed=0, tuning=True)}\n{line(seed=1)}\n")
    assert {method: list(runs) for method, runs in CLOCK["read"](file).items()} == {"OPRD": [0, 1]}
    file.write_text(f"{line(seed=0, rate=1)}\n{line(seed=0, rate=2)}\n")
    with pytest.raises(ValueError, match="two runs of OPRD with seed 0"):
        CLOCK["read"](file)


def test_a_page_is_filled_again_and_again():
    page = "before\n<!-- clock -->\n<!-- end -->\nafter"
    once = CLOCK["filled"](page, ["a", "b"])
    assert once == "before\n<!-- clock -->\na\nb\n<!-- end -->\nafter"
    assert CLOCK["filled"](once, ["a", "b"]) == once


def test_pages_hold_the_table_and_the_picture_of_the_committed_runs(tmp_path):
    found = CLOCK["read"]()
    pages = CLOCK["pages"](found)
    assert {page.name for page in pages} == {"README.md", "cost.md"}
    for page, lines in pages.items():
        text = page.read_text(encoding="utf-8")
        assert CLOCK["filled"](text, lines) == text
        assert f"pictures/{CLOCK['PICTURE'].name}" in text
    drawn = CLOCK["of_seeds"](found, CLOCK["SHOWN"])
    assert {"OPRD", "reverse KL", "TRL's DistillationTrainer"} < set(drawn)
    CLOCK["draw"](drawn, tmp_path / "drawn.svg")
    assert (tmp_path / "drawn.svg").read_bytes() == CLOCK["PICTURE"].read_bytes()
