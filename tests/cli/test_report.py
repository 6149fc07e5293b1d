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
