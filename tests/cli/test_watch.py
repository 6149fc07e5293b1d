"""A run in a terminal: as far as it is, and strangers' words as text."""

import io
import re

import pytest
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner

from oprd.cli.main import app
from oprd.reports import parting
from oprd.reports.terminal import SHADES, screen, sparkline
from oprd.runs.folder import read_run
from oprd.runs.lock import RunLock
from oprd.runs.samples import Sample, append_samples, begin_samples
from tests.reports.made import line, write_metrics, write_run
from tests.reports.test_page import hostile_run


def shown(folder, width=100):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="256")
    console.print(screen(read_run(folder), width))
    return console.file.getvalue()


def test_a_run_shows_how_far_it_is_and_how_long_it_takes(tmp_path):
    folder = write_run(tmp_path / "mine", steps=40)
    write_metrics(folder, [line(step) for step in range(1, 11)])
    with RunLock(folder):
        text = CliRunner().invoke(app, ["watch", str(folder), "--once"]).output
    assert "mine  running. At step 10 of 40." in text
    assert "10/40, 3.5 s a step, 1.8 min left" in text
    for name in ("loss", "cosine of states", "gradient norm", "tokens per second"):
        assert name in text
    assert "rollout of step 40" in text and "prompt: the answer is 5" in text


def test_where_models_part_is_coloured(tmp_path):
    text = shown(write_run(tmp_path / "mine"))
    assert "\x1b[1;4;31m" in text
    assert "yellow to red: cosine from 0.960 down to 0.910" in text


def test_colours_go_as_the_models_come_to_agree(tmp_path):
    """The scale is that of the first and the last step, not of the last one alone."""
    folder = write_run(tmp_path / "mine")
    begin_samples(folder, 0)
    for step, low in ((1, 0.5), (20, 0.97)):
        cosines = [low + (0.99 - low) * n / 39 for n in range(40)]
        sample = Sample(step, "p", ["x "] * 40, [True] * 40, [True] * 40, cosines)
        append_samples(folder, [sample], None)
    text = shown(folder)
    assert "rollout of step 20" in text
    assert not re.search(r"\x1b\[[0-9;]*31m", text)


def test_every_shade_is_another_one():
    assert len(set(SHADES)) == len(SHADES) == parting.SHADES


@pytest.mark.parametrize("width", [20, 60, 200])
def test_hostile_text_is_text_at_any_width(tmp_path, width):
    text = shown(hostile_run(tmp_path), width)
    assert "\x1b[31mred" not in text and "\u202e" not in text and "\ud800" not in text
    rows = [Text.from_ansi(row).cell_len for row in text.split("\n")]
    # Names and figures beside curves have a least width; nothing that a stranger wrote adds to it.
    assert max(rows) <= max(width, 60)


@pytest.mark.parametrize("made", ["empty", "foreign", "cut off"])
def test_a_folder_that_is_no_running_run_says_so(tmp_path, made):
    folder = tmp_path / "odd"
    if made == "cut off":
        write_run(folder, ended=False)
    else:
        folder.mkdir()
    if made == "foreign":
        (folder / "notes.txt").write_text("mine")
    done = CliRunner().invoke(app, ["watch", str(folder), "--once"])
    assert done.exit_code == 0
    state = {"foreign": "not a run"}.get(made, made)
    assert f"odd  {state}." in done.output


@pytest.mark.parametrize("arguments", [["nowhere"], [".", "--every", "0"]])
def test_what_cannot_be_watched_is_a_sentence(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["watch", *arguments])
    assert done.exit_code == 1
    (text,) = done.output.strip().splitlines()
    assert text.startswith("oprd: ")


def test_a_sparkline_spans_its_values():
    assert sparkline([]) == "" and sparkline([2, 2]) == "▄▄"
    assert sparkline([0, 7, 3.5]) == "▁█▅"
