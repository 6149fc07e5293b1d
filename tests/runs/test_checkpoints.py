import json
import logging
from pathlib import Path

import pytest

from oprd.runs.checkpoints import find_checkpoint


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
