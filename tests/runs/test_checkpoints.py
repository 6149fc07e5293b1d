import logging
from pathlib import Path

import pytest

from oprd.runs.checkpoints import (
    begin_checkpoint,
    bytes_of_run,
    check_may_start_anew,
    checkpoint_step,
    clear_run,
    delete_cut_off,
    earlier_run,
    find_checkpoint,
    newest_checkpoint,
    next_start,
    rotate,
)
from oprd.runs.manifest import SAVING, write_manifest
from tests.runs.saved import checkpoint, without_manifest


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- from where a run goes on ---------------------------------------------------------------------


def test_a_run_starts_anew_unless_asked_to_resume(tmp_path: Path):
    checkpoint(tmp_path, 1)
    assert find_checkpoint(tmp_path, None) is None


def test_auto_takes_the_highest_step_or_starts_anew(tmp_path: Path):
    assert find_checkpoint(tmp_path, "auto") is None
    for step in (9, 10):
        newest = checkpoint(tmp_path, step)
    for other in ("best", "v2", "best-9", "11.old", "12 "):
        (tmp_path / f"checkpoint-{other}").mkdir()
    (tmp_path / "checkpoint-13").touch()
    assert find_checkpoint(tmp_path, "auto") == str(newest)


@pytest.mark.parametrize("word", ["auto", "true", "True", True])
def test_auto_and_true_go_on_and_false_starts_anew(tmp_path: Path, word):
    newest = checkpoint(tmp_path, 3)
    assert find_checkpoint(tmp_path, word) == str(newest)
    assert all(find_checkpoint(tmp_path, anew) is None for anew in ("false", "False", False))


def test_auto_names_in_one_line_what_it_skipped_and_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    without_manifest(tmp_path, 1)
    complete = checkpoint(tmp_path, 2)
    (checkpoint(tmp_path, 3) / "optimizer.pt").unlink()
    (checkpoint(tmp_path, 4) / "model.safetensors").write_bytes(b"Weights" * 4)
    without_manifest(tmp_path, 5)
    checkpoint(tmp_path, 6, complete=False)
    with caplog.at_level(logging.WARNING):
        assert find_checkpoint(tmp_path, "auto") == str(complete)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        f"skipped in {str(tmp_path)!r}: checkpoint-6 (its save was cut off), "
        "checkpoint-5 (it has no manifest.json: an earlier version made it, or another program), "
        "checkpoint-4 (its model.safetensors has been altered since it was saved), "
        "checkpoint-3 (its optimizer.pt is missing)."
    )


def test_auto_refuses_to_start_anew_where_all_checkpoints_are_damaged(tmp_path: Path):
    for step in (1, 2):
        (checkpoint(tmp_path, step) / "optimizer.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no checkpoint in .* can be gone on from: checkpoint-2"):
        find_checkpoint(tmp_path, "auto")


def test_auto_starts_anew_where_no_save_was_ever_complete(tmp_path: Path):
    checkpoint(tmp_path, 1, complete=False)
    assert find_checkpoint(tmp_path, "auto") is None


def test_a_damaged_checkpoint_is_refused_by_its_path_and_the_file_named(tmp_path: Path):
    damaged = checkpoint(tmp_path, 1)
    (damaged / "inner" / "shard").write_bytes(b"p")
    with pytest.raises(ValueError, match=r"cannot resume from .*checkpoint-1': its inner/shard"):
        find_checkpoint(tmp_path, str(damaged))


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="there is no such folder"):
        find_checkpoint(tmp_path, str(tmp_path / "checkpoint-3"))


def test_a_checkpoint_without_a_manifest_is_gone_on_from_by_its_path_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    old = without_manifest(tmp_path, 2)
    assert find_checkpoint(tmp_path, str(old)) == str(old)
    assert "has no manifest.json, by which its files could be checked" in caplog.text
    with pytest.raises(ValueError, match=r"checkpoint-2 \(it has no manifest\.json"):
        find_checkpoint(tmp_path, "auto")


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
def test_of_a_checkpoint_without_a_manifest_what_is_seen_to_be_missing_is_refused(
    tmp_path: Path, name: str, content: str | None, problem: str
):
    old = without_manifest(tmp_path, 2)
    (old / name).unlink()
    if content is not None:
        (old / name).write_text(content)
    with pytest.raises(ValueError, match=f"cannot resume from checkpoint .*{problem}"):
        find_checkpoint(tmp_path, str(old))


def test_weights_alone_are_evaluated_and_not_gone_on_from(tmp_path: Path):
    alone = checkpoint(tmp_path, 2, settings={"save_only_model": True})
    assert newest_checkpoint(tmp_path) == alone
    for wanted in ("auto", str(alone)):
        with pytest.raises(ValueError, match="holds weights alone"):
            find_checkpoint(tmp_path, wanted)


def test_a_run_that_went_back_to_an_earlier_step_goes_on_from_what_it_saved_since(tmp_path: Path):
    assert next_start(tmp_path) == 1
    for step in (2, 4, 6):
        checkpoint(tmp_path, step)
    assert next_start(tmp_path) == 2
    since = checkpoint(tmp_path, 3, start=2)
    assert find_checkpoint(tmp_path, "auto") == str(since)


def test_the_step_of_a_checkpoint_is_known_without_a_manifest_too(tmp_path: Path):
    assert checkpoint_step(checkpoint(tmp_path, 7)) == 7
    assert checkpoint_step(without_manifest(tmp_path, 8)) == 8


# --- what is deleted ------------------------------------------------------------------------------


def test_a_save_begins_without_what_an_earlier_one_left(tmp_path: Path):
    left = checkpoint(tmp_path, 2)
    (left / "model.safetensors.tmp").touch()
    begin_checkpoint(left)
    assert names(left) == {SAVING}


def test_the_oldest_complete_checkpoints_are_deleted_and_nothing_else(tmp_path: Path):
    for step in (1, 2, 3, 4):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 5, complete=False)
    without_manifest(tmp_path, 6)
    for other in ("checkpoint-v2", "checkpoint-best-9", "checkpoint-1-old"):
        (tmp_path / other).mkdir()
    others = names(tmp_path) - {"checkpoint-1", "checkpoint-2"}
    rotate(tmp_path, None)
    assert len(names(tmp_path)) == 9
    rotate(tmp_path, 2)
    assert names(tmp_path) == others


def test_the_best_checkpoint_stays_beside_the_newest(tmp_path: Path):
    for step in (1, 2, 3):
        checkpoint(tmp_path, step)
    rotate(tmp_path, 1, str(tmp_path / "checkpoint-1"))
    assert names(tmp_path) == {"checkpoint-1", "checkpoint-3"}


def test_rotation_keeps_what_was_saved_last_not_the_highest_step(tmp_path: Path):
    checkpoint(tmp_path, 6)
    checkpoint(tmp_path, 3, start=2)
    rotate(tmp_path, 1)
    assert names(tmp_path) == {"checkpoint-3"}


def test_cut_off_saves_are_deleted_and_others_are_not(tmp_path: Path):
    checkpoint(tmp_path, 1)
    without_manifest(tmp_path, 2)
    checkpoint(tmp_path, 3, complete=False)
    delete_cut_off(tmp_path)
    assert names(tmp_path) == {"checkpoint-1", "checkpoint-2"}


def test_overwriting_deletes_what_the_run_names_and_nothing_else(tmp_path: Path):
    kept = checkpoint(tmp_path, 1)
    (kept / "mine").touch()
    checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 3, complete=False)
    without_manifest(tmp_path, 4)
    for name in ("model.safetensors", "run.json", "metrics.jsonl", "thesis.tex"):
        (tmp_path / name).touch()
    write_manifest(tmp_path, {}, ["model.safetensors"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "model.safetensors").touch()
    write_manifest(tmp_path / "best", {})
    assert clear_run(tmp_path, "best") == ["checkpoint-4", "checkpoint-1"]
    assert names(tmp_path) == {"checkpoint-1", "checkpoint-4", "thesis.tex", "empty"}
    assert names(kept) == {"mine"}


# --- a folder that is used ------------------------------------------------------------------------


def test_a_new_run_is_not_begun_among_the_checkpoints_of_another(tmp_path: Path):
    check_may_start_anew(tmp_path)
    checkpoint(tmp_path, 1, complete=False)
    check_may_start_anew(tmp_path)
    for step in (2, 3, 4, 5):
        checkpoint(tmp_path, step)
    with pytest.raises(ValueError) as refused:
        check_may_start_anew(tmp_path)
    for words in ("(checkpoint-5, checkpoint-4, checkpoint-3 …)", "--overwrite", "--output_dir",
                  "--resume_from_checkpoint auto"):  # fmt: skip
        assert words in str(refused.value)


def test_an_empty_folder_holds_no_earlier_run(tmp_path: Path):
    (tmp_path / "bridge.safetensors").touch()
    assert earlier_run(tmp_path) is None
    assert earlier_run(tmp_path / "none") is None


@pytest.mark.parametrize("left", ["run.json", "metrics.jsonl", "adapter_model.safetensors", "best"])
def test_an_earlier_run_is_known_by_whatever_it_left(tmp_path: Path, left: str):
    (tmp_path / left).touch()
    text = str(earlier_run(tmp_path))
    assert f"holds an earlier run ({left})" in text and "another --output_dir" in text


@pytest.mark.parametrize("name", ["best", "."])
def test_a_student_alone_is_not_gone_on_from(tmp_path: Path, name: str):
    student = tmp_path / name
    student.mkdir(exist_ok=True)
    (student / "model.safetensors").write_bytes(b"weights")
    write_manifest(student, {"step": 4})
    with pytest.raises(ValueError, match=r"holds a student alone, .*RUN/checkpoint-N") as error:
        find_checkpoint(tmp_path, str(student))
    assert "\n" not in str(error.value)


def test_what_overwriting_frees_is_known_before(tmp_path: Path):
    checkpoint(tmp_path, 1)
    checkpoint(tmp_path, 2, complete=False)
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "mine").write_bytes(b"unnamed")
    (tmp_path / "best").mkdir()
    for folder in (tmp_path, tmp_path / "best"):
        (folder / "model.safetensors").write_bytes(b"weights")
        write_manifest(folder, {}, ["model.safetensors"])
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "thesis.tex").write_text("mine")
    expected, before = bytes_of_run(tmp_path, "best"), bytes_in(tmp_path)
    manifests = sum(path.stat().st_size for path in tmp_path.rglob("manifest.json"))
    clear_run(tmp_path, "best")
    assert before - bytes_in(tmp_path) == expected + manifests


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
