"""`oprd eval --run` says which student of the run it evaluated."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from oprd.cli.main import app
from oprd.evaluation.records import read_records, rewrite_records
from oprd.reports.evaluations import read_evaluations
from oprd.runs.record import SAVED, student_of_run
from tests import tiny
from tests.training import runs

SETTINGS = ("--tasks", "additions", "--samples", "1", "--limit", "2", "--max_new_tokens", "2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of a step."""
    for seed, name in enumerate(("student", "teacher")):
        tiny.model(seed=seed).save_pretrained(tmp_path / name)
        tiny.tokenizer().save_pretrained(tmp_path / name)
    train(tmp_path / "run")
    return tmp_path / "run"


def train(folder: Path, **options) -> None:
    models = (str(folder.parent / name) for name in ("student", "teacher"))
    made = runs.trainer(folder, *models, **options)
    made.train()
    made.save_model()


def evaluate(folder: Path):
    return CliRunner().invoke(app, ["eval", "--run", str(folder), *SETTINGS])


def student_file(folder: Path) -> Path:
    (file,) = (folder / "evaluations").glob("student_after*/*.jsonl")
    return file


def test_what_was_evaluated_is_known_by_how_it_was_saved(folder):
    assert evaluate(folder).exit_code == 0
    header, _ = read_records(student_file(folder))
    assert header[SAVED] == student_of_run(folder) is not None
    assert len(read_evaluations(folder)[0]) == 3
    train(folder, overwrite=True, learning_rate=0.2)
    found, left_out = read_evaluations(folder)
    assert [evaluation.header["model"] for evaluation in found] == ["teacher", "student before"]
    assert len(left_out) == 1
    # The way out that is named.
    again = evaluate(folder)
    assert again.exit_code == 1 and "was written with weights=" in again.output
    student_file(folder).unlink()
    assert evaluate(folder).exit_code == 0
    assert len(read_evaluations(folder)[0]) == 3


def test_a_file_of_an_earlier_version_is_gone_on_with_and_says_no_more(folder):
    assert evaluate(folder).exit_code == 0
    file = student_file(folder)
    header, records = read_records(file)
    del header[SAVED]
    rewrite_records(file, header, records[:1])
    done = evaluate(folder)
    assert done.exit_code == 0, done.output
    header, records = read_records(file)
    assert SAVED not in header and len(records) == 2
    results = json.loads((folder / "evaluations" / "results.json").read_text())
    assert [found["obtained"] for found in results["evaluations"]] == [2, 2, 2]
