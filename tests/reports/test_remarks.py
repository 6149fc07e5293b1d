"""What a reader is warned of."""

from oprd.reports.remarks import remarks
from oprd.runs.folder import read_run
from oprd.runs.warned import append_warning
from tests.reports.made import line, write_metrics, write_run


def evaluated(step, value):
    """A task's figure in the log, with an interval of ten points on either side."""
    figures = {"": value, "_low": value - 0.1, "_high": value + 0.1}
    return [{"step": step, **{f"eval/sums/avg@4{end}": v for end, v in figures.items()}}]


def said(folder):
    return remarks(read_run(folder))


def test_a_warning_that_each_part_of_a_run_gave_is_told_once_with_its_count(tmp_path):
    folder = write_run(tmp_path / "run")
    for step, text in ((0, "first"), (4, "second"), (10, "first"), (15, "first")):
        append_warning(folder, step, text)
    assert said(folder) == ["first (3 times, last at step 15)", "step 4: second"]


def fallen(folder, **settings):
    made = write_run(folder, settings=settings)
    write_metrics(made, [*evaluated(0, 0.2), line(1), *evaluated(1, 0.7), *evaluated(2, 0.3)])
    (text,) = [text for text in said(made) if "was best at" in text]
    return text


def test_how_the_best_student_is_kept_is_advised_where_it_was_not(tmp_path):
    text = fallen(tmp_path / "run")
    assert text == (
        "sums was best at step 1, 70.0%, and ended at 30.0%: keep_best: sums/avg@4 keeps that "
        "student."
    )
    assert "keep_best: sums/avg@4 keeps" in fallen(tmp_path / "other", keep_best="sums/best@4")


def test_where_the_best_student_was_kept_its_place_is_told(tmp_path):
    assert fallen(tmp_path / "run", keep_best="sums/avg@4").endswith(
        "that student is kept in best/."
    )


def test_a_figure_that_fell_within_its_interval_is_nothing_to_remark(tmp_path):
    folder = write_run(tmp_path / "run")
    lines = [*evaluated(0, 0.5), line(1), *evaluated(1, 0.52), *evaluated(2, 0.5)]
    write_metrics(folder, [*lines, {"step": 2, "train_runtime": 1.0}])
    assert said(folder) == []
