"""What is published: complete, and enough for what README shows."""

import email
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import oprd
from tests import tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make dist` builds it, of the sources that it publishes."""
    folder = tmp_path_factory.mktemp("dist")
    # What builds it is fetched from the package registry, as on a maintainer's machine.
    command = [sys.executable, "-m", "build", "--outdir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (found,) = folder.glob("*.whl")
    assert list(folder.glob("*.tar.gz"))
    return found


@pytest.mark.slow(minutes=0.5)
def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
        assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "src/oprd"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert packed == {name.removeprefix("src/") for name in tracked.stdout.split()}
    assert metadata["Version"] == oprd.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "representation" in metadata["Summary"]


@pytest.mark.slow(minutes=4)
def test_an_environment_with_the_wheel_alone_trains_evaluates_and_reports(wheel, tmp_path):
    """In a folder whose name has a space and letters of another alphabet."""
    home = tmp_path / "мой run"
    home.mkdir()
    subprocess.run([sys.executable, "-m", "venv", home / "env"], check=True)
    program = home / "env" / "bin"

    def run(*command: object) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [str(part) for part in command],
            cwd=home,
            env={**environment, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    pip = (program / "python", "-m", "pip", "install", "--quiet")
    pip = (*pip, "--constraint", ROOT / "constraints.txt")
    run(*pip, "torch")
    run(*pip, f"{wheel}[report]")
    for name, seed in (("student", 1), ("teacher", 2)):
        tiny.model(seed=seed).save_pretrained(home / name)
        tiny.tokenizer().save_pretrained(home / name)
    assert "FAIL" not in run(program / "oprd", "doctor")
    run(program / "oprd", "recipes", "quickstart")
    prompts = home / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps({"prompt": f"What is {n} + {n}?"}) for n in range(8)))
    run(
        *(program / "oprd", "train", "--config", "quickstart.yaml"),
        *("--model_name_or_path", "student", "--teacher_model_name_or_path", "teacher"),
        *("--dataset_name", prompts, "--output_dir", "runs/mine", "--max_steps", 2),
        *("--per_device_train_batch_size", 4, "--gradient_accumulation_steps", 1),
        *("--max_completion_length", 8, "--report_to", "none"),
    )
    run(
        program / "oprd",
        "eval",
        "--run",
        "runs/mine",
        "--tasks",
        "additions",
        "--limit",
        2,
        "--max_new_tokens",
        16,
    )
    run(program / "oprd", "report", "runs/mine")
    assert (home / "runs/mine/report.html").exists()
