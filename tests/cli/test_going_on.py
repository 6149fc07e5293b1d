"""`oprd train` in a folder that a run was in before, or is in."""

import fcntl
import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from oprd.analysis.peak import estimate_run
from oprd.cli import train
from oprd.runs.lock import LOCK
from oprd.runs.manifest import problem
from tests import tiny
from tests.cli.test_train import SETTINGS, invoke


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and settings, and in `out` a run of two steps that was saved after each."""
    path = tmp_path_factory.mktemp("run")
    for seed, name in enumerate(("student", "teacher")):
        tiny.model("llama", seed=seed).save_pretrained(path / name)
        tiny.tokenizer().save_pretrained(path / name)
    (path / "run.yaml").write_text(SETTINGS.format(folder=path))
    assert invoke(path).exit_code == 0
    return path


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """The same, for a test to change."""
    shutil.copytree(finished, tmp_path / "copy")
    (tmp_path / "copy" / "run.yaml").write_text(SETTINGS.format(folder=tmp_path / "copy"))
    return tmp_path / "copy"


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch):
    def loaded(*args: object, **kwargs: object):
        raise AssertionError("models were loaded")

    monkeypatch.setattr(train, "OPRDTrainer", loaded)


def refusal(folder: Path, *arguments: str) -> str:
    """The one line that refuses a command."""
    result = invoke(folder, *arguments)
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("oprd: ")
    return line


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_finished_run_that_is_gone_on_with_trains_nothing_and_says_so(folder: Path):
    before = contents(folder / "out")
    for _ in range(2):
        result = invoke(folder, "--resume_from_checkpoint", "auto")
        assert result.exit_code == 0, result.output
        assert "Nothing to train: all 2 steps of the run are done." in result.stdout
        assert "Trained 2 steps" in result.stdout
    after = contents(folder / "out")
    for name in ("model.safetensors", "metrics.jsonl", "checkpoint-2/manifest.json"):
        assert after[name] == before[name]
    assert not (folder / "out" / "checkpoint-3").exists()
    # The student is saved again, as it was.
    assert problem(folder / "out") is None


def test_a_run_that_goes_on_is_told_of_no_search_for_a_rate(folder: Path, monkeypatch):
    resumes: list[bool] = []

    def told(trainer, **options):
        resumes.append(options["resumes"])
        return estimate_run(trainer, **options)

    monkeypatch.setattr(train, "estimate_run", told)
    assert invoke(folder, "--preview", "--resume_from_checkpoint", "auto").exit_code == 0
    assert invoke(folder, "--resume_from_checkpoint", "auto").exit_code == 0
    assert invoke(folder, "--preview").exit_code == 0
    assert invoke(folder, "--overwrite", "--max_steps", "1").exit_code == 0
    assert resumes == [True, True, False, False]


def test_fewer_steps_than_a_checkpoint_has_are_refused(folder: Path, no_models):
    line = refusal(folder, "--resume_from_checkpoint", "auto", "--max_steps", "1")
    assert "checkpoint-2' is of step 2, beyond max_steps=1" in line


def test_a_new_run_among_the_checkpoints_of_another_is_refused_before_models_load(
    folder: Path, no_models
):
    line = refusal(folder)
    assert "holds checkpoints of an earlier run (checkpoint-2, checkpoint-1)" in line
    for way_out in ("--resume_from_checkpoint auto", "--overwrite", "another --output_dir"):
        assert way_out in line


def test_from_a_path_into_the_folder_of_another_run_is_refused_too(folder: Path, no_models):
    elsewhere = (folder / "out").rename(folder / "elsewhere") / "checkpoint-1"
    (folder / "out" / "checkpoint-9").mkdir(parents=True)
    assert "(checkpoint-9)" in refusal(folder, "--resume_from_checkpoint", str(elsewhere))


def test_overwriting_replaces_the_run_and_leaves_what_is_not_its_own(folder: Path):
    (folder / "out" / "thesis.tex").write_text("mine")
    result = invoke(folder, "--overwrite", "--max_steps", "1")
    assert result.exit_code == 0, result.output
    assert (folder / "out" / "thesis.tex").read_text() == "mine"
    assert [p.name for p in (folder / "out").glob("checkpoint-*")] == ["checkpoint-1"]
    assert json.loads((folder / "out" / "checkpoint-1" / "manifest.json").read_text())["start"] == 1


@pytest.mark.parametrize("wanted", ["auto", "{folder}/out/checkpoint-1"])
def test_overwriting_and_going_on_exclude_each_other(folder: Path, no_models, wanted: str):
    before = contents(folder / "out")
    line = refusal(folder, "--overwrite", "--resume_from_checkpoint", wanted.format(folder=folder))
    assert "give one of them" in line and contents(folder / "out") == before


def test_auto_does_not_start_anew_where_all_checkpoints_are_damaged(folder: Path, no_models):
    for optimizer in (folder / "out").glob("checkpoint-*/optimizer.pt"):
        optimizer.write_bytes(b"")
    line = refusal(folder, "--resume_from_checkpoint", "auto")
    assert "checkpoint-2 (its optimizer.pt has 0 bytes" in line and "--overwrite" in line
    damaged = str(folder / "out" / "checkpoint-1")
    line = refusal(folder, "--resume_from_checkpoint", damaged)
    assert "cannot resume from checkpoint" in line and "its optimizer.pt has 0 bytes" in line


def test_another_loss_is_refused_before_models_load_and_may_be_allowed(folder: Path):
    arguments = ["--resume_from_checkpoint", "auto", "--max_steps", "3", "--output_loss", "topk"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "OPRDTrainer", None)
        line = refusal(folder, *arguments)
    assert "output_loss (began with output_loss='none', now 'topk')" in line
    result = invoke(folder, *arguments, "--allow_changed", "output_loss")
    assert result.exit_code == 0, result.output
    changed = json.loads((folder / "out" / "run.json").read_text())["changed"]
    assert {"step": 2, "name": "output_loss", "before": "none", "now": "topk"} in changed


def test_what_is_allowed_to_change_must_be_something_that_a_run_keeps(folder: Path, no_models):
    line = refusal(folder, "--allow_changed", "output_loss,techer")
    assert "allow_changed must be one of" in line and "did you mean 'teacher'?" in line


def test_a_second_run_in_a_folder_is_refused_before_models_load(folder: Path, no_models):
    holder = {"pid": 1, "host": socket.gethostname(), "started": 0}
    with (folder / "out" / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(holder))
        file.flush()
        line = refusal(folder, "--resume_from_checkpoint", "auto")
    assert f"process 1 on {socket.gethostname()} trains in {str(folder / 'out')!r}" in line


def test_the_folder_is_free_after_a_run_however_it_ended(folder: Path, monkeypatch):
    arguments = ["--resume_from_checkpoint", "auto", "--max_steps", "3"]
    with monkeypatch.context() as patch:
        patch.setattr(train.OPRDTrainer, "train", lambda *_, **__: 1 / 0)
        assert isinstance(invoke(folder, *arguments).exception, ZeroDivisionError)
    assert not (folder / "out" / LOCK).exists()
    assert invoke(folder, *arguments).exit_code == 0
    assert not (folder / "out" / LOCK).exists() and os.path.exists(folder / "out" / "checkpoint-3")
