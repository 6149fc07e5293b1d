"""The page on reports says what the commands do, and each command that it shows runs."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from oprd import OPRDConfig
from oprd.cli.main import app
from oprd.guards.samples import KEPT
from oprd.reports.figure import DPI
from oprd.runs.metrics import METRICS
from oprd.runs.samples import POSITIONS, SAMPLES
from oprd.runs.warned import WARNINGS
from tests import tiny
from tests.reports.made import write_run

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "report.md").read_text()
COMMANDS = re.findall(r"^oprd .*$", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_is_shown_runs(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    tiny.model().save_pretrained("student")
    tiny.tokenizer().save_pretrained("student")
    for name in ("mine", "first", "second"):
        folder = write_run(Path("runs") / name, student="student")
        tiny.model(seed=1).save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
    done = CliRunner().invoke(app, shlex.split(command)[1:])
    assert done.exit_code == 0, done.output


def test_every_file_has_a_row_and_defaults_are_those_of_the_code():
    rows = re.findall(r"^\| `([\w.]+)` \|", PAGE, flags=re.MULTILINE)
    assert rows == [METRICS, SAMPLES, POSITIONS, WARNINGS]
    default = OPRDConfig.__dataclass_fields__["sample_steps"].default
    assert f"`sample_steps` ({default}) says at which steps {KEPT} rollouts are kept" in PAGE
    assert f"every picture at {DPI}" in PAGE


def test_every_option_has_a_row():
    rows = re.findall(r"^\| `(--\w+)` \|", PAGE, flags=re.MULTILINE)
    command = get_command(app).commands["report"]  # type: ignore[attr-defined]
    assert rows == [option for each in command.params for option in each.opts if "--" in option]


@pytest.mark.parametrize("target", re.findall(r"\]\(((?!http)[^)]+)\)", PAGE))
def test_every_link_leads_somewhere(target):
    assert (ROOT / "docs" / target).exists()
