"""`oprd report` starts without a model library, and what is missing is one sentence."""

import builtins
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from oprd.cli.main import app
from tests.reports.made import write_run


def test_every_output_is_written_where_it_is_asked_for(tmp_path):
    runs = [str(write_run(tmp_path / name)) for name in ("a", "b")]
    outputs = ["--output", "r.html", "--markdown", "r.md", "--csv", "r.csv", "--png", "png"]
    places = [part if part.startswith("--") else str(tmp_path / part) for part in outputs]
    done = CliRunner().invoke(app, ["report", *runs, *places])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")
    assert "\n## a\n" in (tmp_path / "r.md").read_text()
    assert (tmp_path / "r.csv").read_text().startswith("run,step")
    assert (tmp_path / "png" / "loss.png").is_file()
    assert "finished. 20 steps." in done.output


def test_a_report_stands_in_the_run_folder_by_default(tmp_path):
    folder = write_run(tmp_path / "mine")
    assert CliRunner().invoke(app, ["report", str(folder)]).exit_code == 0
    assert (folder / "report.html").is_file()


def report(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


@pytest.fixture
def quick(monkeypatch):
    """Pages without their pictures."""
    monkeypatch.setattr("oprd.reports.page.of_runs", lambda *_, **__: [])
    monkeypatch.setattr("oprd.reports.page.of_run", lambda *_: [])


def test_a_report_on_several_runs_stands_here_and_leaves_those_of_each(
    tmp_path, monkeypatch, quick
):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write_run(tmp_path / name)
    assert report("a").exit_code == 0
    own = (tmp_path / "a" / "report.html").read_text()
    assert report("a", "b").exit_code == 0
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "a" / "report.html").read_text() == own


@pytest.mark.parametrize("there", ["of others", "a note", "of others, one run"])
def test_nothing_is_overwritten_that_is_no_report_on_the_same_runs(
    tmp_path, monkeypatch, quick, there
):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        write_run(tmp_path / name)
    file = tmp_path / "report.html"
    runs = ["a", "b"]
    if there == "of others":
        assert report("b", "c").exit_code == 0
    elif there == "a note":
        file.write_text("mine")
    else:
        file, runs = tmp_path / "a" / "report.html", ["a"]
        assert report("b", "--output", file).exit_code == 0
    before = file.read_text()
    done = report(*runs)
    assert done.exit_code == 1
    (text,) = done.output.strip().splitlines()
    assert "is there and no report on" in text and "--output" in text
    assert file.read_text() == before
    # On the same ones it is made anew, and where it is named it is meant.
    if there == "of others":
        assert report("b", "c").exit_code == 0
    assert report(*runs, "--output", file).exit_code == 0
    assert file.read_text() != before


def test_runs_of_the_same_names_are_other_runs_and_the_same_ones_are_so_from_anywhere(
    tmp_path, monkeypatch, quick
):
    monkeypatch.chdir(tmp_path)
    runs = {name: [f"{name}/seed{n}" for n in (0, 1)] for name in ("exp1", "exp2")}
    for run in (*runs["exp1"], *runs["exp2"]):
        write_run(tmp_path / run)
    assert report(*runs["exp1"]).exit_code == 0
    before = (tmp_path / "report.html").read_text()
    done = report(*runs["exp2"])
    assert done.exit_code == 1 and "no report on exp2/seed0, exp2/seed1: name" in done.output
    assert (tmp_path / "report.html").read_text() == before and str(tmp_path) not in before
    assert report(*(tmp_path / run for run in runs["exp1"])).exit_code == 0
    # In the folder of the run, wherever that is moved to.
    assert report("exp1/seed0").exit_code == 0
    (tmp_path / "exp1").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert report("seed0").exit_code == 0


def test_a_page_of_an_earlier_version_in_the_folder_of_its_run_is_made_anew(tmp_path, quick):
    folder = write_run(tmp_path / "mine")
    (folder / "report.html").write_text('<meta name="oprd-runs" content="[&quot;mine&quot;]">')
    assert report(folder).exit_code == 0
    (folder / "report.html").write_text('<meta name="oprd-runs" content="[&quot;other&quot;]">')
    assert report(folder).exit_code == 1


@pytest.mark.parametrize("made", ["empty", "foreign"])
def test_nothing_is_written_into_a_folder_that_is_no_run(tmp_path, quick, made):
    folder = tmp_path / "notes"
    folder.mkdir()
    if made == "foreign":
        (folder / "notes.txt").write_text("mine")
    before = sorted(folder.iterdir())
    done = report(folder)
    assert done.exit_code == 1 and "--output" in done.output
    assert sorted(folder.iterdir()) == before
    assert report(folder, "--output", tmp_path / "r.html").exit_code == 0
    assert "holds no run" in (text := (tmp_path / "r.html").read_text()) or "is empty" in text


def test_folders_on_the_way_to_an_output_are_made(tmp_path, quick):
    folder = write_run(tmp_path / "a")
    outputs = {name: tmp_path / "new" / name / "r" for name in ("output", "markdown", "csv")}
    done = report(folder, *(part for name, path in outputs.items() for part in (f"--{name}", path)))
    assert done.exit_code == 0, done.output
    assert all(path.is_file() for path in outputs.values())


@pytest.mark.parametrize(
    "arguments", [["--output", "x", "--csv", "x"], ["--csv", "."], ["--png", "note"]]
)
def test_outputs_that_cannot_be_are_refused_before_anything_is_written(
    tmp_path, monkeypatch, quick, arguments
):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "a")
    (tmp_path / "note").write_text("mine")
    done = report("a", *arguments)
    assert done.exit_code == 1 and "\n" not in done.output.strip()
    assert not (tmp_path / "a" / "report.html").exists() and not (tmp_path / "x").exists()


def test_a_folder_that_is_not_there_is_a_sentence(tmp_path):
    done = CliRunner().invoke(app, ["report", str(tmp_path / "nowhere")])
    assert done.exit_code == 1
    assert "there is no such run folder" in done.output and "\n" not in done.output.strip()


@pytest.mark.parametrize("module", ["jinja2", "matplotlib", "scipy"])
def test_a_missing_extra_is_one_sentence_with_its_command(tmp_path, monkeypatch, module):
    folder = write_run(tmp_path / "mine")
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setitem(sys.modules, module, None)
    done = CliRunner().invoke(app, ["report", str(folder)])
    assert done.exit_code == 1
    assert done.output.strip() == (
        f"oprd: oprd report needs {module}, which is not installed: pip install 'oprd[report]'."
    )


def test_no_model_library_is_loaded(tmp_path):
    folder = write_run(tmp_path / "mine")
    code = (
        "import sys; from oprd.cli.main import app\n"
        f"for command in (['report', {str(folder)!r}], ['watch', {str(folder)!r}, '--once']):\n"
        "    app(command, standalone_mode=False)\n"
        "assert not {'torch', 'transformers', 'trl', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
