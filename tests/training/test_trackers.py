"""What trackers get of a run, each tried for real and without a network where it is installed."""

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRAIN = """
import sys
from pathlib import Path
from tests.training.runs import trainer
name, folder = sys.argv[1:]
options = {"project": "project"} if name == "trackio" else {}
trainer(
    Path(folder), max_steps=2, report_to=[name], log_completions=True, run_name="tiny", **options
).train()
"""


def train(name: str, folder: Path) -> None:
    """Train two steps, in a process of its own: trackers read their environment once."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: pip install {name}")
    places = {"WANDB_DIR": str(folder), "TRACKIO_DIR": str(folder), "WANDB_MODE": "offline"}
    subprocess.run(
        [sys.executable, "-c", TRAIN, name, str(folder / "run")],
        check=True,
        cwd=ROOT,
        env={**os.environ, **places, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        timeout=240,
    )


def test_tensorboard_gets_every_figure(tmp_path):
    train("tensorboard", tmp_path)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = (tmp_path / "run" / "runs").iterdir()
    log = EventAccumulator(str(events))
    log.Reload()
    assert {"train/loss", "train/rep_cosine", "train/rep_cosine/layer_01"} <= set(
        log.Tags()["scalars"]
    )
    assert [event.step for event in log.Scalars("train/rep_cosine")] == [1, 2]


def test_trackio_gets_every_figure_and_rollouts_as_a_table(tmp_path):
    train("trackio", tmp_path)
    with sqlite3.connect(tmp_path / "project.db") as database:
        logged = [json.loads(row[0]) for row in database.execute("SELECT metrics FROM metrics")]
    assert sum("train/rep_cosine" in line for line in logged) == 2
    tables = [line["completions"] for line in logged if "completions" in line]
    assert tables
    assert all({"prompt", "completion"} <= set(table["_value"][0]) for table in tables)


def test_wandb_without_a_network_gets_rollouts_as_a_table(tmp_path):
    train("wandb", tmp_path)
    (files,) = tmp_path.glob("wandb/offline-run-*/files")
    tables = sorted(files.glob("media/table/completions_*.json"))
    assert tables
    for table in map(json.loads, (table.read_text() for table in tables)):
        assert {"prompt", "completion"} <= set(table["columns"]) and table["data"]
