import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from oprd.analysis import cost
from oprd.cli.main import app
from tests import tiny

SMALL = ["--layers_count", "1", "--vocab_size", "300", "--prompt_length", "3"]
SMALL += ["--response_length", "8", "--rounds", "1", "--no-memory"]


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["bench", *arguments])


def test_it_prints_a_table_and_writes_json_and_a_picture(tmp_path):
    result = invoke(*SMALL, "--objectives", "oprd,topk", "--output_dir", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert all(label in result.stdout for label in ("floor", "OPRD", "top-16", "smollm2-135m"))
    written = json.loads((tmp_path / "cost.json").read_text())
    assert [e["name"] for e in written["points"][0]["objectives"]] == ["floor", "oprd", "topk"]
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_figures_are_there_and_the_picture_is_asked_for(
    tmp_path, monkeypatch
):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = invoke(*SMALL, "--objectives", "oprd", "--output_dir", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert [file.name for file in tmp_path.iterdir()] == ["cost.json"]
    assert "a picture needs matplotlib, which is not installed" in result.stderr
    assert f"cost.json is in {tmp_path}" in result.stdout.replace("\n", "")


def test_it_sweeps(tmp_path):
    sweep = ("--sweep", "length", "--values", "4, 8", "--objectives", "oprd")
    result = invoke(*SMALL, *sweep, "--output_dir", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert "response_length" in result.stdout and "growth" in result.stdout
    assert (tmp_path / "cost.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "gpt-5"], "shape must be one of"),
        (["--objectives", "oprd,"], "objectives must be among"),
        (["--sweep", "width"], "sweep must be one of"),
        (["--values", "1,2"], "--values belongs to --sweep"),
        (["--sweep", "vocab", "--values", "1e3"], "must be whole numbers with commas, got '1e3'"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--student", "./no", "--teacher", "./no"], "student './no': there is no such file"),
        (
            ["--student", "none/such", "--teacher", "b"],
            "student 'none/such': there is no such file",
        ),
        (["--student", "here"], "give a shape, or both a student and a teacher"),
        (["--student", "./a", "--teacher", "./b"], "student './a': there is no such file"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, arguments, message):
    result = invoke(*arguments, "--output_dir", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert message in result.stderr and result.stderr.count("\n") == 1


def test_a_measurement_of_memory_that_fails_says_why_and_of_what(tmp_path, monkeypatch):
    def measure(command, *, input, **_):
        failed = json.loads(input)["objective"] == "oprd_layers"
        error = "Traceback ...\nValueError: layer 7 is outside 1..1.\n" if failed else ""
        return subprocess.CompletedProcess(command, int(failed), "1\n", error)

    monkeypatch.setattr(cost.subprocess, "run", measure)
    wrong = ("--objectives", "oprd_layers", "--layers", "7")
    result = invoke(*SMALL[:-1], *wrong, "--output_dir", str(tmp_path))
    assert result.exit_code == 1
    assert "memory of oprd_layers failed (ValueError: layer 7" in result.stderr.splitlines()[-1]


def test_models_that_cannot_be_compared_are_named_before_anything_is_timed(tmp_path):
    for name, width in (("student", 32), ("teacher", 64)):
        tiny.model(hidden_size=width).save_pretrained(tmp_path / name)
    models = [f"--{name}={tmp_path / name}" for name in ("student", "teacher")]
    result = invoke(*models, "--objectives", "oprd", "--no-memory")
    assert result.exit_code == 1
    assert (
        "the student's width is 32 and the teacher's 64" in result.stderr
        and result.stderr.count("\n") == 1
    )


def test_a_place_that_cannot_be_written_to_is_one_sentence(tmp_path):
    file = tmp_path / "file"
    file.touch()
    result = invoke(*SMALL, "--output_dir", str(file))
    assert result.exit_code == 1
    assert "cannot be written to" in result.stderr and result.stderr.count("\n") == 1
