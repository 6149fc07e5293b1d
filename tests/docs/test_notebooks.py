"""The notebooks run from top to bottom, one after another in one folder, and are notebooks."""

import subprocess
import sys
from pathlib import Path

import pytest

from docs.generate import notebooks
from tests.docs.workshop import ROOT

FOLDER = ROOT / "docs" / "notebooks"
ORDER = ("first_run", "look_and_decide", "own_loss")


def test_all_are_run():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_a_page_of_the_site_shows_every_line(name):
    path = FOLDER / f"{name}.py"
    page = notebooks.page(path)
    for line in notebooks.code(path.read_text()).splitlines():
        assert line in page
    assert page.startswith("# ")


@pytest.mark.parametrize("name", ORDER)
def test_jupytext_makes_a_notebook_of_it(name, tmp_path):
    jupytext = pytest.importorskip("jupytext", reason="the extra docs is not installed")
    made = jupytext.read(FOLDER / f"{name}.py")
    kinds = [cell.cell_type for cell in made.cells]
    assert kinds[0] == "markdown" and "code" in kinds
    jupytext.write(made, tmp_path / f"{name}.ipynb")
    assert (tmp_path / f"{name}.ipynb").stat().st_size > 1000


@pytest.mark.slow(minutes=2)
def test_they_run_from_top_to_bottom(tmp_path: Path):
    """Each ends with what it claims as an assertion."""
    for name in ORDER:
        done = subprocess.run(
            [sys.executable, FOLDER / f"{name}.py"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{name}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
