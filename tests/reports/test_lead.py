"""The first sentences of a report: what was trained and whether it worked."""

from oprd.evaluation.records import rewrite_records
from oprd.reports.told import read
from oprd.runs.folder import read_run
from tests.evaluation.samples import header
from tests.reports.made import line, record_of, write_metrics, write_run
from tests.reports.test_remarks import evaluated


def lead(folder):
    return read([read_run(folder)]).pages[0].lead


def test_what_was_trained_is_one_sentence(tmp_path):
    names = {"student": "owner/small", "teacher": "/data/models/large"}
    what, _ = lead(write_run(tmp_path / "run", **names))
    assert what == (
        "The student, owner/small, wrote responses to 100 prompts from additions; the teacher, "
        "large, read them; and the student's hidden states were pulled to the teacher's, for 20 "
        "steps."
    )
    outputs = {"representation_weight": 0, "output_loss": "reverse_kl"}
    (what, _) = lead(write_run(tmp_path / "outputs", settings=outputs))
    assert "student's output distributions were pulled" in what


def test_whether_it_worked_is_the_paired_difference(tmp_path):
    folder = write_run(tmp_path / "run")
    assert lead(folder)[1] == (
        "On additions, 24 problems, the student solved 25.0% before and 50.0% after: +25.0 points "
        "[+8.3, +45.8]. The teacher solves 75.0%."
    )


def test_a_difference_that_chance_explains_is_called_that(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "samples" / "teacher.jsonl").unlink()
    for name, solved in (("student before", 3), ("student after", 4)):
        records = [record_of(str(n), "x", (n * 7) % 24 < solved) for n in range(24)]
        file = folder / "samples" / f"{name}.jsonl"
        rewrite_records(file, header(model=name, asked=24, task="additions"), records)
    assert ", within what chance explains." in lead(folder)[1]


def test_without_evaluations_of_whole_models_the_log_answers(tmp_path):
    folder = write_run(tmp_path / "run")
    for file in (folder / "samples").iterdir():
        file.unlink()
    write_metrics(folder, [*evaluated(0, 0.25), line(1), *evaluated(1, 0.5)])
    assert lead(folder)[1] == (
        "On sums the student solved 25.0% [15.0, 35.0] at step 0 and 50.0% [40.0, 60.0] at step 1."
    )


def test_what_was_not_evaluated_is_not_said_to_have_worked(tmp_path):
    folder = write_run(tmp_path / "run")
    for file in (folder / "samples").iterdir():
        file.unlink()
    write_metrics(folder, [line(1, rep_cosine=0.5), line(2, rep_cosine=0.75)])
    (said,) = lead(folder)[1:]
    assert said.startswith("Whether the student got better is not known")
    assert "from 0.500 to 0.750, which alone says nothing" in said


def test_a_run_that_logged_nothing_is_told_by_its_state_alone(tmp_path):
    folder = write_run(tmp_path / "run")
    write_metrics(folder, [])
    assert lead(folder) == []
