"""Launch files: Accelerate reads every one, and what a CPU can run is run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from tests.docs.test_recipes import OVERRIDES, places  # noqa: F401 # a fixture

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "recipes" / "accelerate").glob("*.yaml"))
EVERY = [*FILES, ROOT / "src/oprd/recipes/fsdp2.yaml"]


def test_all_are_here():
    assert {file.stem for file in FILES} == {"ddp", "zero2", "zero3", "fsdp2_two_nodes"}


@pytest.mark.parametrize("file", EVERY, ids=lambda file: file.stem)
def test_accelerate_knows_every_setting(file: Path):
    content = yaml.safe_load(file.read_text())
    # Refuses what it does not know at the top.
    loaded = load_config_from_file(str(file))
    assert loaded.num_processes == content["num_processes"]
    flags = vars(launch_command_parser().parse_args(["-m", "oprd"]))
    for part in ("fsdp_config", "deepspeed_config"):
        assert set(content.get(part, {})) <= flags.keys()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_says_whether_it_was_run_and_how_to(file: Path):
    head = file.read_text().partition("compute_environment")[0]
    assert f"accelerate launch --config_file recipes/accelerate/{file.name}" in head
    assert ("\n# Run by us" in head) == (file.stem == "ddp")
    assert ("\n# Not run by us" in head) == (file.stem != "ddp")


@pytest.mark.slow(minutes=2)
def test_two_processes_on_a_cpu_train(places: Path):  # noqa: F811
    given = {
        **OVERRIDES,
        "model_name_or_path": "student",
        "teacher_model_name_or_path": "teacher",
        "dataset_name": "prompts.jsonl",
        "output_dir": "run",
        "per_device_train_batch_size": "2",
    }
    flags = [part for name, value in given.items() for part in (f"--{name}", value)]
    file = ROOT / "recipes" / "accelerate" / "ddp.yaml"
    launch = ["-m", "accelerate.commands.launch", "--config_file", file, "--num_processes", "2"]
    ended = subprocess.run(
        [sys.executable, *launch, "-m", "oprd", "train", *flags],
        cwd=places,
        capture_output=True,
        text=True,
        timeout=500,
        env={
            **os.environ,
            "ACCELERATE_USE_CPU": "1",
            "PYTHONPATH": str(ROOT / "src"),
            "OMP_NUM_THREADS": "1",
        },
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    record = json.loads((places / "run" / "run.json").read_text())
    assert record["identity"]["processes"] == 2
