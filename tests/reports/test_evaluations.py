"""What a report takes of a run's evaluations, and what it shows of them."""

from pathlib import Path

import pytest

from oprd.evaluation.records import rewrite_records
from oprd.reports import page
from oprd.reports.evaluations import ALIKE, APART, AnswerPair, read_evaluations, task_tables
from oprd.reports.told import read
from oprd.runs.folder import read_run
from oprd.runs.record import student_of_run
from tests.evaluation.samples import header
from tests.reports.made import record_of, write_run
from tests.runs.test_record import saved


def evaluated(run: Path, name: str, **facts) -> None:
    """An evaluation of the run."""
    records = [record_of(f"the answer is 5 {n}", "x", n % 2 == 0) for n in range(24)]
    file = run / "evaluations" / name / "additions.jsonl"
    file.parent.mkdir(parents=True)
    rewrite_records(file, header(model=name, asked=24, task="additions", **facts), records)


def models(run: Path) -> list[str]:
    return [evaluation.header["model"] for evaluation in read_evaluations(run)[0]]


def test_an_evaluation_of_a_student_that_the_run_has_no_more_is_left_out_and_named(tmp_path):
    run = saved(write_run(tmp_path / "run"), "first")
    (run / "samples" / "student after.jsonl").unlink()
    evaluated(run, "student after", saved=student_of_run(run))
    assert models(run) == ["teacher", "student before", "student after"]
    saved(run, "trained on")
    assert models(run) == ["teacher", "student before"]
    (told,) = read([read_run(run)]).pages
    assert "of another student than the run has now" in told.remarks[-1]
    assert "run oprd eval --run FOLDER again" in told.remarks[-1]
    assert str(tmp_path) not in told.remarks[-1] and "student after" in told.remarks[-1]
    saved(run, "first")
    assert "student after" in models(run)


@pytest.mark.parametrize("saved_as", [{}, {"saved": None}])
def test_an_evaluation_that_does_not_say_its_student_is_taken_as_it_is(tmp_path, saved_as):
    run = saved(write_run(tmp_path / "run"), "first")
    (run / "samples" / "student after.jsonl").unlink()
    evaluated(run, "student after", **saved_as)
    assert "student after" in models(run)


def test_before_and_after_are_compared_beside_however_many_others(tmp_path):
    run = write_run(tmp_path / "run")
    said = task_tables(read_evaluations(run)[0], 0)[0].gain
    for name in ("one", "two", "three"):
        evaluated(run, name)
    (table,) = task_tables(read_evaluations(run)[0], 0)
    assert len(table.rows) == 6 and table.gain is not None
    assert table.gain.result == said.result
    assert [(found.model, found.baseline) for found in table.compared] == [
        ("student after", "student before")
    ]
    assert "25.0% before and 50.0% after" in read([read_run(run)]).pages[0].lead[1]


def test_of_long_answers_the_place_where_they_part_is_shown():
    alike = "a" * 5_000
    pair = AnswerPair("p", "5", ("x", "y"), (alike + "b" * 3_000, alike), (True, False), 5_000)
    assert pair.parting == [
        ("… " + "a" * ALIKE, "b" * APART + " …"),
        ("… " + "a" * ALIKE, ""),
    ]
    short = AnswerPair("p", "5", ("x", "y"), ("ab", "ac"), (True, False), 1)
    assert short.parting == [("a", "b"), ("a", "c")]


def test_a_page_shows_where_long_answers_part(tmp_path):
    run = write_run(tmp_path / "run", text="as before " * 1_000)
    assert "<mark>2</mark>" in page.html(read([read_run(run)]))
