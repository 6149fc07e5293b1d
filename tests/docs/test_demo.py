"""`make demo` as a person runs it."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from oprd.core.layers import select_layers

ROOT = Path(__file__).parents[2]


@pytest.fixture
def demo(monkeypatch):
    """Its module, which imports others as a script of its folder does."""
    before = dict(os.environ)
    monkeypatch.syspath_prepend(ROOT / "recipes" / "demo")
    yield importlib.import_module("demo")
    for name in ("demo", "smollm2"):
        sys.modules.pop(name, None)
    # Scripts set what libraries read when they are imported.
    os.environ.clear()
    os.environ.update(before)


def test_a_folder_that_is_no_runs_is_left_alone_and_nothing_is_loaded(demo, tmp_path, monkeypatch):
    (tmp_path / "samples").mkdir()
    kept = tmp_path / "samples" / "mine.jsonl"
    kept.write_text("mine")
    monkeypatch.setattr(sys, "argv", ["demo.py", "--run", str(tmp_path)])
    monkeypatch.setattr(demo, "generate_task", None)
    with pytest.raises(SystemExit, match=r"--run: .* is there and no run"):
        demo.main()
    assert [*tmp_path.rglob("*")] == [kept.parent, kept]


def test_the_teacher_is_a_small_adapter_by_the_hub_id_of_its_base():
    folder = ROOT / "recipes/demo/teacher"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (folder / "adapter_model.safetensors").stat().st_size <= 6 * 10**6
    assert not [path for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]


@pytest.mark.slow(minutes=6)
def test_the_demo_closes_most_of_the_gap(tmp_path):
    command = [sys.executable, str(ROOT / "recipes/demo/demo.py"), "--run", str(tmp_path / "run")]
    # A person's environment does not hold it to the tests' one thread.
    person = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    done = subprocess.run(command, capture_output=True, text=True, env=person)
    assert done.returncode == 0, done.stderr[-3000:]
    closed = re.search(r"gap closed: (\d+)%", done.stdout)
    assert closed and int(closed[1]) >= 80, done.stdout
    files = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*")}
    samples = {f"samples/{name}.jsonl" for name in ("teacher", "student-before", "student-after")}
    assert {"run.json", "metrics.jsonl", "curves.png", *samples} <= files
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert [pair[0] for pair in record["layer_pairs"]] == list(select_layers("all", 30))
