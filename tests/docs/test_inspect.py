"""The page on inspections says what the command and the advice do."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from oprd.analysis.inspection.advice import MARGIN
from oprd.analysis.inspection.inspect import JSON_FILE, PICTURE, RECIPE
from oprd.calibration.rollouts import FILE
from oprd.calibration.similarity import MAX_ROWS
from oprd.cli.main import app
from oprd.models.matching import RELATED_COSINE

DOCS = Path(__file__).parents[2] / "docs"
PAGE, PAPER = (DOCS / "inspect.md").read_text(), (DOCS / "paper.md").read_text()
COMMAND = typer.main.get_command(app).commands["inspect"]  # pyright: ignore[reportAttributeAccessIssue]
OPTIONS = {name: option for option in COMMAND.params for name in option.opts}


def test_every_option_that_is_shown_exists():
    fenced = re.findall(r"^```\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    (shown,) = [block for block in fenced if block.startswith("oprd inspect --student path")]
    given = {part for part in shlex.split(shown.replace("\\\n", " ")) if part.startswith("--")}
    assert given == {"--student", "--teacher", "--prompts"}
    named = set(re.findall(r"`(--\w+)`", PAGE))
    assert named <= OPTIONS.keys()


def test_defaults_and_bounds_are_those_of_the_code():
    assert f"answer {OPTIONS['--max_prompts'].default} of the prompts" in PAGE
    limit = OPTIONS["--max_completion_length"].default
    assert f"`--max_completion_length` {limit} tokens" in " ".join(PAGE.split())
    assert f"at most {MAX_ROWS:,} supervised positions" in PAGE
    assert f"at least {RELATED_COSINE}" in PAGE and f"better by {MARGIN}" in PAGE


def test_every_file_has_a_row():
    rows = re.findall(r"^\| `([\w.]+)` \|", PAGE, flags=re.MULTILINE)
    assert set(rows) == {RECIPE, JSON_FILE, PICTURE, FILE}


@pytest.mark.parametrize("figure", re.findall(r"\d+\.\d%|[+-]\d+\.\d (?=\[)|\[[-+].*?\]", PAGE))
def test_figures_of_the_lab_stand_on_its_page(figure):
    assert figure.strip() in PAPER or figure.strip("+- ") in PAPER
