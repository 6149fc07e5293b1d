import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oprd.runs import manifest
from oprd.runs.manifest import (
    CARD,
    CUT_OFF,
    NOT_THERE,
    SAVING,
    UNKNOWN,
    begin_saving,
    content_hash,
    delete_named,
    manifest_text,
    problem,
    read_manifest,
    saved_into,
    write_manifest,
)
from oprd.text import escaped
from tests.runs.saved import checkpoint


def test_a_folder_is_complete_once_its_manifest_is_written(tmp_path: Path):
    saved = checkpoint(tmp_path, 3, complete=False)
    assert problem(saved) == CUT_OFF
    write_manifest(saved, {"step": 3})
    assert problem(saved) is None and not (saved / SAVING).exists()
    found = read_manifest(saved)
    assert found is not None and found["step"] == 3
    assert set(found["files"]) == {
        "model.safetensors", "optimizer.pt", "trainer_state.json", "inner/shard",
    }  # fmt: skip


def test_what_is_not_named_is_no_part_of_it(tmp_path: Path):
    saved = checkpoint(tmp_path, 3)
    (saved / "notes.txt").write_text("mine")
    assert problem(saved) is None


def test_a_card_may_be_written_again(tmp_path: Path):
    """PEFT saves one of its own with an adapter, in whose place a run's stands afterwards."""
    saved = checkpoint(tmp_path, 3, complete=False)
    (saved / CARD).write_text("of a library")
    write_manifest(saved, {})
    (saved / CARD).write_text("of the run")
    assert problem(saved) is None


def test_a_folder_that_says_nothing_is_unknown_and_one_that_is_not_there_is_not(tmp_path: Path):
    assert problem(tmp_path) == UNKNOWN
    assert problem(tmp_path / "none") == NOT_THERE


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "inner/shard"])
def test_every_damage_is_seen_and_its_file_named(tmp_path: Path, name: str):
    file = checkpoint(tmp_path, 3) / name
    whole, folder = file.read_bytes(), tmp_path / "checkpoint-3"
    file.write_bytes(whole[:-1])
    assert problem(folder) == f"its {name} has {len(whole) - 1} bytes in the place of {len(whole)}"
    file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert problem(folder) == f"its {name} has been altered since it was saved"
    # Sizes alone do not show it.
    assert problem(folder, contents=False) is None
    file.write_bytes(b"")
    assert f"its {name} has 0 bytes" in str(problem(folder))
    file.unlink()
    assert problem(folder) == f"its {name} is missing"
    file.mkdir()
    assert problem(folder) == f"its {name} is missing"


ENTRY = {"size": 0, "sha256": "0" * 64}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", "[" * 100_000])
def test_a_damaged_manifest_is_said_to_be_so(tmp_path: Path, text: str):
    saved = checkpoint(tmp_path, 3)
    (saved / "manifest.json").write_text(text)
    assert problem(saved) == "its manifest.json is damaged"


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"files": []},
        {"files": {}, "format": True},
        {"files": {"a": {"size": 1}}},
        {"files": {"a": {**ENTRY, "size": -1}}},
        {"files": {}, "step": "2"},
        {"files": {}, "settings": []},
    ],
)
def test_a_manifest_of_another_form_is_damaged(tmp_path: Path, content: dict[str, Any]):
    (tmp_path / "manifest.json").write_text(manifest_text(content))
    assert problem(tmp_path) == "its manifest.json is damaged"
    (tmp_path / "manifest.json").write_text(manifest_text({"files": {}}))
    assert problem(tmp_path) is None


def test_a_manifest_that_has_been_altered_itself_is_damaged(tmp_path: Path):
    file = checkpoint(tmp_path, 3, facts={"mean_squares": 0.25}) / "manifest.json"
    file.write_text(file.read_text().replace("0.25", "0.75"))
    assert problem(file.parent) == "its manifest.json is damaged"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    for name in ("long" * 100, "half of a pair \ud800"):
        (tmp_path / "manifest.json").write_text(manifest_text({"files": {name: ENTRY}}))
        assert str(problem(tmp_path)).startswith(f"its {escaped(name)} ")


def test_a_manifest_of_a_later_format_is_not_guessed_at(tmp_path: Path):
    (tmp_path / "manifest.json").write_text('{"format": 2, "files": []}')
    assert "has format 2, of a later version" in str(problem(tmp_path))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
ENTRIES = st.fixed_dictionaries({"size": st.integers(), "sha256": st.just("0" * 64) | st.text()})


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {"format": st.just(1) | JSON, "files": st.dictionaries(st.text(), ENTRIES | JSON) | JSON},
        optional={"step": JSON, "settings": JSON},
    )
    | JSON
)
def test_whatever_stands_in_a_manifest_is_no_crash(tmp_path: Path, content: Any):
    signed = manifest_text(content) if isinstance(content, dict) else json.dumps(content)
    (tmp_path / "manifest.json").write_text(signed)
    assert problem(tmp_path) is None or isinstance(problem(tmp_path), str)


@pytest.mark.parametrize("name", ["../victim", "{}", "a/../../victim", ".", ""])
def test_a_manifest_that_names_what_is_elsewhere_is_damaged_and_deletes_nothing(
    tmp_path: Path, name: str
):
    victim, saved = tmp_path / "victim", tmp_path / "run"
    victim.touch()
    saved.mkdir()
    (saved / "manifest.json").write_text(manifest_text({"files": {name.format(victim): ENTRY}}))
    with pytest.raises(ValueError, match="damaged"):
        delete_named(saved)
    assert victim.exists()


def test_what_is_named_is_deleted_and_nothing_else(tmp_path: Path):
    saved, outside = checkpoint(tmp_path, 3), tmp_path / "outside"
    (saved / "inner" / "mine").touch()
    delete_named(saved)
    assert [path.name for path in saved.rglob("*") if path.is_file()] == ["mine"]
    # Not through a link that has taken the place of a folder.
    other = checkpoint(tmp_path, 4)
    (other / "inner").rename(outside)
    (other / "inner").symlink_to(outside)
    delete_named(other)
    assert (outside / "shard").exists()


def test_a_manifest_is_on_the_disk_after_the_files_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    saved = checkpoint(tmp_path, 3, complete=False)
    synchronized: list[str] = []
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        synchronized.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    write_manifest(saved, {})
    files = ["inner/shard", "model.safetensors", "optimizer.pt", "trainer_state.json"]
    names = [Path(name).name for name in files]
    assert synchronized == [*names, "inner", "manifest.json.partial", "checkpoint-3"]


def test_a_file_that_is_saved_anew_is_read_anew(tmp_path: Path):
    saved = checkpoint(tmp_path, 3)
    assert problem(saved) is None
    begin_saving(saved)
    assert problem(saved) == CUT_OFF
    (saved / "optimizer.pt").write_bytes(b"others!")
    write_manifest(saved, {})
    assert problem(saved) is None


# --- a student beside other things ----------------------------------------------------------------

ADAPTER = ["adapter_config.json", "adapter_model.safetensors"]
WHOLE = ["config.json", "model.safetensors"]
SHARDS = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
SHARDED = ["config.json", "model.safetensors.index.json", *SHARDS]


def save_student(folder: Path, names: list[str], *, cut_off: bool = False) -> None:
    """A save into a run's folder, some time after what is there was written."""
    for path in folder.rglob("*"):
        os.utime(path, ns=(0, path.stat().st_mtime_ns - 10**9))
    with saved_into(folder, dict, re.compile("best|checkpoint-.*")):
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            (folder / name).write_text(name)
        if cut_off:
            raise InterruptedError


def left(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file()
    )


# What a student is not loaded from, such as the vocabulary that it was loaded with.
BESIDE = ["optimizer.pt", "tokenizer.model"]


@pytest.mark.parametrize(
    ("before", "now", "stays"),
    [
        (ADAPTER, WHOLE, []),
        (WHOLE, ADAPTER, ["config.json"]),
        (SHARDED, WHOLE, []),
        (["inner/" + ADAPTER[1]], WHOLE, []),
        (BESIDE, WHOLE, BESIDE),
    ],
    ids=["adapter", "whole", "sharded", "inner", "others"],
)
def test_a_student_that_a_save_takes_the_place_of_is_gone_and_nothing_else(
    tmp_path: Path, before: list[str], now: list[str], stays: list[str]
):
    save_student(tmp_path, before)
    mine = ["model-mine.safetensors", "thesis.tex"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    save_student(tmp_path, now)
    assert left(tmp_path) == sorted([*now, *stays, *mine, "manifest.json"])
    found = read_manifest(tmp_path)
    assert found is not None and sorted(found["files"]) == sorted([*now, *stays])
    assert problem(tmp_path) is None and not (tmp_path / "inner").exists()


def test_it_is_gone_too_where_a_save_between_was_cut_off(tmp_path: Path):
    save_student(tmp_path, ADAPTER)
    for _ in range(2):
        with pytest.raises(InterruptedError):
            save_student(tmp_path, ["config.json"], cut_off=True)
        assert problem(tmp_path) == CUT_OFF and (tmp_path / ADAPTER[0]).exists()
    save_student(tmp_path, WHOLE)
    assert left(tmp_path) == sorted([*WHOLE, "manifest.json"])


def test_the_same_student_saved_again_at_once_is_all_there(tmp_path: Path):
    for _ in range(50):
        with saved_into(tmp_path, dict, re.compile("best")):
            for name in SHARDED:
                (tmp_path / name).write_text(name)
        found = read_manifest(tmp_path)
        assert found is not None and sorted(found["files"]) == sorted(SHARDED)


def test_a_card_and_what_stands_apart_outlive_a_save(tmp_path: Path):
    apart = tmp_path / "best"
    save_student(tmp_path, [CARD, *ADAPTER])
    save_student(apart, WHOLE)
    save_student(tmp_path, WHOLE)
    assert problem(apart) is None
    found = read_manifest(tmp_path)
    assert found is not None and sorted(found["files"]) == sorted([CARD, *WHOLE])


def test_nothing_is_deleted_for_a_manifest_that_is_damaged(tmp_path: Path):
    save_student(tmp_path, ADAPTER)
    (tmp_path / "manifest.json").write_text("{")
    save_student(tmp_path, WHOLE)
    assert {*ADAPTER, *WHOLE} < {*left(tmp_path)}


def test_a_disk_that_is_full_leaves_no_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved = checkpoint(tmp_path, 3, complete=False)

    def full(self: Path, *_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(manifest.Path, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            write_manifest(saved, {})
    assert problem(saved) == CUT_OFF and not list(saved.glob("*.partial"))


def test_a_manifest_may_be_read_by_whom_the_umask_allows(tmp_path: Path):
    saved = checkpoint(tmp_path, 3)
    assert stat.S_IMODE((saved / "manifest.json").stat().st_mode) == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


def test_the_hash_of_settings_is_one_whatever_their_order():
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})
