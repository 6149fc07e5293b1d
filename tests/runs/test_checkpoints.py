import json
import logging
from pathlib import Path

import pytest

from oprd.runs.checkpoints import earlier_run, find_checkpoint


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return path


def test_a_run_starts_anew_unless_asked_to_resume(tmp_path: Path):
    checkpoint(tmp_path, 1)
    assert find_checkpoint(tmp_path, None) is None


def test_auto_takes_the_highest_step_or_starts_anew(tmp_path: Path):
    assert find_checkpoint(tmp_path, "auto") is None
    for step in (9, 10):
        newest = checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    assert find_checkpoint(tmp_path, "auto") == str(newest)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("trainer_state.json", None, "no trainer_state.json"),
        ("trainer_state.json", '{"global_step": 2', "damaged"),
        ("trainer_state.json", "[]", "damaged"),
        ("trainer_state.json", "{}", "damaged"),
        ("model.safetensors", None, "no model weights"),
        ("model.safetensors", "", "no model weights"),
    ],
)
def test_an_incomplete_checkpoint_is_skipped_by_auto_and_refused_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, content: str | None, problem: str
):
    complete, cut = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2)
    (cut / name).unlink()
    if content is not None:
        (cut / name).write_text(content)
    with caplog.at_level(logging.WARNING):
        assert find_checkpoint(tmp_path, "auto") == str(complete)
    assert str(cut) in caplog.text and problem in caplog.text
    with pytest.raises(ValueError, match=f"cannot resume from checkpoint .*{problem}"):
        find_checkpoint(tmp_path, str(cut))


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="there is no such folder"):
        find_checkpoint(tmp_path, str(tmp_path / "checkpoint-3"))


@pytest.mark.parametrize("word", ["auto", "true", "True", True])
def test_auto_and_true_go_on_and_false_starts_anew(tmp_path: Path, word):
    newest = checkpoint(tmp_path, 3)
    assert find_checkpoint(tmp_path, word) == str(newest)
    assert all(find_checkpoint(tmp_path, anew) is None for anew in ("false", "False", False))


def test_an_empty_folder_holds_no_earlier_run(tmp_path: Path):
    (tmp_path / "bridge.safetensors").touch()
    assert earlier_run(tmp_path) is None
    assert earlier_run(tmp_path / "none") is None


@pytest.mark.parametrize("left", ["run.json", "metrics.jsonl", "adapter_model.safetensors", "best"])
def test_an_earlier_run_is_known_by_whatever_it_left(tmp_path: Path, left: str):
    (tmp_path / left).touch()
    assert f"holds an earlier run ({left})" in str(earlier_run(tmp_path))
    for step in (9, 10):
        checkpoint(tmp_path, step)
    text = str(earlier_run(tmp_path))
    assert text.startswith(f"{str(tmp_path)!r} holds an earlier run (checkpoints up to step 10, ")
    assert "give --resume_from_checkpoint auto" in text and "another --output_dir" in text
