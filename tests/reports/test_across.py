"""Students of several runs beside each other: paired by problem, and only where that is fair."""

import csv

import numpy as np
import pytest

from oprd.evaluation.records import rewrite_records
from oprd.evaluation.result import Evaluation, compare_evaluations
from oprd.evaluation.table import cell, points
from oprd.reports import page
from oprd.reports.across import across
from oprd.reports.markdown import markdown
from oprd.reports.table import write_csv
from oprd.reports.told import read
from oprd.runs.folder import read_run
from tests.evaluation.samples import evaluation, header
from tests.reports.made import record_of, write_run

SAMPLING = header()["sampling"]


def student(solved: int, of: int = 20, model: str = "student after", **other) -> Evaluation:
    """One that solves the first so many problems."""
    return evaluation({f"{n:02d}": [n < solved] for n in range(of)}, model=model, **other)


def test_each_student_is_compared_with_that_of_the_first_run_by_problem():
    found = [student(5), student(12), student(3)]
    (table,), apart = across([[one] for one in found])
    assert not apart and (table.task, table.problems, table.samples) == ("t", 20, 1)
    assert [row.row.average.value for row in table.rows] == [0.25, 0.6, 0.15]
    assert table.rows[0].against is None
    for row, other in zip(table.rows[1:], found[1:], strict=True):
        assert row.against is not None
        assert row.against.result == compare_evaluations(found[0], other)
        # Two comparisons of one table.
        assert row.against.p_holm >= row.against.result.p_value
    counts = [(r.against.result.wins, r.against.result.losses) for r in table.rows[1:]]
    assert counts == [(7, 0), (0, 2)]


def test_the_order_of_the_runs_turns_the_sign():
    ways = [across([[student(a)], [student(b)]])[0][0].rows[1].against for a, b in ((5, 9), (9, 5))]
    there, back = (way.result.difference for way in ways)
    assert there.value == -back.value == pytest.approx(0.2)
    assert ways[0].result.p_value == ways[1].result.p_value


def test_of_a_run_its_last_student_is_taken():
    steps = [student(n, model=f"step-{n:06d}") for n in (0, 9, 10)]
    others = [student(20, model=name) for name in ("teacher", "student before", "mine")]
    (table,), _ = across([[*reversed(steps), *others], [student(1)]])
    assert [row.row.model for row in table.rows] == ["step-000010", "student after"]
    (table,), _ = across([[student(7), *steps], [student(1)]])
    assert table.rows[0].row.average.value == 7 / 20


def test_runs_of_other_seeds_are_compared():
    (table,), apart = across([[student(5)], [student(6, sampling={**SAMPLING, "seed": 7})]])
    assert len(table.rows) == 2 and not apart


@pytest.mark.parametrize(
    "other",
    [
        {"sampling": {**SAMPLING, "temperature": 0.0}},
        {"template_hash": "other"},
        {"problems_hash": "other"},
        {"source": "other"},
        {"of": 19},
    ],
)
def test_what_was_not_evaluated_alike_is_not_compared_and_said_to_be_apart(other):
    tables, apart = across([[student(5)], [student(5, **other)]])
    assert (tables, apart) == ([], ["t"])
    # Beside a third that is like the first, two are compared.
    (table,), apart = across([[student(5)], [student(5, **other)], [student(8)]])
    assert [row.run for row in table.rows] == [0, 2] and apart == ["t"]


def test_a_task_of_one_run_alone_is_not_missed():
    assert across([[student(5)], [student(5, task="u")]]) == ([], [])
    assert across([[student(5)], []]) == ([], [])


@pytest.fixture
def runs(tmp_path):
    folders = [write_run(tmp_path / name) for name in ("first", "second")]
    records = [record_of(f"the answer is 5 {n}", "x", n % 4 < 3) for n in range(24)]
    file = folders[1] / "samples" / "student after.jsonl"
    rewrite_records(file, header(model="student after", asked=24, task="additions"), records)
    return [read_run(folder) for folder in folders]


def test_the_difference_stands_in_every_form(runs, tmp_path):
    told = read(runs)
    result = told.across[0].rows[1].against.result
    assert result.difference.value == pytest.approx(0.25)
    shown = points(result.difference, "")
    text = page.html(told)
    assert "Whether they worked" in text and "difference from A (points)" in text
    assert shown in text and cell(shown) in markdown(told)
    files = write_csv(told, tmp_path / "all.csv")
    assert [file.name for file in files] == [
        "all.csv", "all-evaluations.csv", "all-differences.csv"
    ]  # fmt: skip
    with files[2].open() as opened:
        rows = list(csv.DictReader(opened))
    (row,) = [row for row in rows if row["run"] != row["baseline_run"]]
    assert (row["run"], row["baseline_run"], row["task"]) == ("second", "first", "additions")
    told_values = [float(row[name]) for name in ("difference", "low", "high", "p")]
    found = result.difference
    assert told_values == [found.value, found.low, found.high, result.p_value]
    with files[1].open() as opened:
        shares = [float(r["average"]) for r in csv.DictReader(opened) if r["run"] == "second"]
    assert np.allclose(shares, [0.75, 0.25, 0.75])


def test_one_run_alone_is_compared_with_nothing(runs):
    assert not read(runs[:1]).across
    assert "Whether they worked" not in page.html(read(runs[:1]))
