import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from typer.testing import CliRunner

import oprd
from oprd import supported
from oprd.cli import doctor
from oprd.cli.main import app
from oprd.training.trainer import OPRDTrainer

SENTENCE = (
    "transformers 5.25.0 is installed, and oprd is tested with >=5.17,<5.25: "
    "pip install 'transformers>=5.17,<5.25'."
)


@pytest.fixture
def installed(monkeypatch):
    """Lets a test say which version is installed."""
    return lambda found: monkeypatch.setattr(supported, "version", lambda name: found)


@pytest.mark.parametrize("found", ["5.17.0", "5.20.2", "5.24.0", "5.24.1.dev0"])
def test_a_version_of_the_range_is_returned(installed, found):
    installed(found)
    assert supported.check_transformers() == found


@pytest.mark.parametrize(
    "found", ["4.57.6", "5.16.1", "5.17.0rc1", "5.25.0.dev0", "5.25.0", "6.0.0"]
)
def test_a_version_outside_is_refused_by_name(installed, found):
    installed(found)
    with pytest.raises(ImportError, match=f"transformers {found} is installed"):
        supported.check_transformers()


def test_the_range_is_that_of_the_package():
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    found = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}
    assert found["transformers"] == SpecifierSet(supported.TRANSFORMERS)


def test_the_pinned_version_is_in_the_range():
    pins = Path("constraints.txt").read_text().splitlines()
    (pinned,) = (line.partition("==")[2] for line in pins if line.startswith("transformers=="))
    assert pinned in SpecifierSet(supported.TRANSFORMERS)


def test_the_trainer_is_refused_when_it_is_imported_and_when_it_is_made(installed):
    installed("5.25.0")
    with pytest.raises(ImportError) as raised:
        _ = oprd.OPRDTrainer
    assert str(raised.value) == SENTENCE
    with pytest.raises(ImportError) as raised:
        OPRDTrainer("no such student", "no such teacher")
    assert str(raised.value) == SENTENCE


COMMANDS = {
    "train": [],
    "eval": ["--tasks", "additions"],
    "inspect": ["--student", "a", "--teacher", "b", "--prompts", "additions"],
    "bench": [],
    "bridge fit": ["--student", "a", "--teacher", "b"],
    "export": ["run", "out"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_reads_models_says_so_in_one_line(installed, command):
    installed("5.25.0")
    result = CliRunner().invoke(app, [*command.split(), *COMMANDS[command]])
    assert (result.exit_code, result.stderr) == (1, f"oprd: {SENTENCE}\n")


def test_every_command_is_among_those():
    def names(group: Any) -> set[str]:
        commands = group.registered_commands
        return {command.name or command.callback.__name__ for command in commands}

    (bridge,) = app.registered_groups
    within = {f"{bridge.name} {name}" for name in names(bridge.typer_instance)}
    assert names(app) | within == {*COMMANDS, "doctor", "recipes", "report", "watch"}


def test_the_doctor_reports_it_among_its_findings(installed, monkeypatch):
    installed("5.25.0")
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(doctor, "CHECKS", dict(list(doctor.CHECKS.items())[:2]))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert SENTENCE in result.stdout and "FAIL" in result.stdout and "pass" in result.stdout


def test_the_doctor_says_so_where_that_version_cannot_even_be_imported(installed, monkeypatch):
    installed("5.25.0")
    monkeypatch.setitem(sys.modules, "oprd.cli.doctor", None)
    result = CliRunner().invoke(app, ["doctor"])
    assert (result.exit_code, result.stderr) == (1, f"oprd: {SENTENCE}\n")
    installed("5.24.0")
    assert "transformers" not in CliRunner().invoke(app, ["doctor"]).stderr
