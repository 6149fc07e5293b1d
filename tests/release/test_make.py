"""`make` with a Python that is too old says so, before anything is made."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Says of itself that it is 3.10.
OLD = """\
#!{python}
import sys
sys.version_info = (3, 10, 14, "final", 0)
exec(sys.argv[2])
"""


def test_an_old_python_is_refused_in_one_sentence_that_names_the_way_out(tmp_path: Path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "python3.10"
    old.write_text(OLD.format(python=sys.executable))
    old.chmod(0o755)
    done = subprocess.run(
        ["make", f"PYTHON={old}", "setup"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0 and not (tmp_path / ".venv").exists()
    said = "oprd needs Python 3.11 or newer: make PYTHON=python3.12"
    assert done.stderr.splitlines()[0] == said


def test_pip_is_told_the_same():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    assert "Programming Language :: Python :: 3.11" in project["classifiers"]
