"""What a run leaves in its folder: whatever it holds later, it is read or refused in a sentence."""

import errno
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oprd.runs import lock
from oprd.runs.beginning import Wanted, find_beginning
from oprd.runs.checkpoints import clear_run, find_checkpoint, newest_checkpoint, rotate
from oprd.runs.folder import read_run
from oprd.runs.lock import LOCK, RunLock
from oprd.runs.manifest import MANIFEST, manifest_text, problem
from oprd.runs.record import BEST, BEST_RECORD, models_of_run, read_best
from tests.fuzzing.drawn import FEW, OURS, altered, damaged, json_values, write_json
from tests.reports.made import write_run
from tests.runs.saved import checkpoint, without_manifest


def going_on(run: Path) -> None:
    """All that asks for a checkpoint."""
    for saved in run.glob("checkpoint-*"):
        found = problem(saved)
        assert found is None or (isinstance(found, str) and "\n" not in found)
        newest_checkpoint(run)
        for wanted in ("auto", str(saved), None):
            try:
                find_checkpoint(run, wanted, say=False)
            except OURS as error:
                assert str(run) in str(error)
            try:
                find_beginning(Wanted(run, wanted, {"max_steps": 9, "scale": "unit"}, 9))
            except OURS as error:
                assert str(run) in str(error)
        rotate(run, 1)


@FEW
@given(data=st.data())
def test_no_manifest_is_another_kind_of_error(tmp_path: Path, data: st.DataObject):
    # Each example has a run of its own: what is drawn must not depend on the one before.
    run = Path(tempfile.mkdtemp(dir=tmp_path)) / "run"
    saved = checkpoint(run, 3, settings={"max_steps": 9}, facts={"identity": {}})
    file = saved / MANIFEST
    whole = json.loads(file.read_text())
    whole.pop("sha256", None)
    # Signed as one of ours, or just bytes.
    signed = st.builds(lambda made: manifest_text(made).encode(), altered(whole))
    file.write_bytes(data.draw(signed | damaged(file.read_bytes())))
    going_on(run)
    outside = run.parent / "outside"
    outside.write_text("mine")
    clear_run(run, BEST)
    assert outside.read_text() == "mine"


@FEW
@given(data=st.data())
def test_no_state_of_a_checkpoint_without_a_manifest_is_another_kind_of_error(
    tmp_path: Path, data: st.DataObject
):
    folder = tmp_path / "checkpoint-3"
    file = (folder if folder.exists() else without_manifest(tmp_path, 3)) / "trainer_state.json"
    file.write_bytes(data.draw(damaged(b'{"global_step": 3, "epoch": 1.0}')))
    going_on(tmp_path)
    write_json(file, data.draw(json_values()))
    going_on(tmp_path)


FILES = ("run.json", "metrics.jsonl", "warnings.jsonl", "samples.jsonl", "positions.jsonl")


def read(run: Path) -> None:
    """All that reads a run's folder."""
    found = read_run(run)
    assert found.state and found.note and isinstance(found.settings, dict)
    found.seconds_left()
    for reader in (models_of_run, read_best):
        try:
            reader(run)
        except OURS as error:
            assert run.name in str(error)


@FEW
@given(data=st.data())
@pytest.mark.parametrize("name", FILES)
def test_no_record_of_a_run_is_another_kind_of_error(
    tmp_path: Path, name: str, data: st.DataObject
):
    run = tmp_path / "run"
    if not run.exists():
        write_run(run)
    file = run / name
    whole = file.read_bytes() if file.is_file() else b'{"step": 1, "text": "x"}\n'
    first, _, rest = whole.partition(b"\n") if name != "run.json" else (whole, b"", b"")
    made = altered(json.loads(first))
    file.write_bytes(data.draw(damaged(whole) | st.builds(_line, made, st.just(rest))))
    read(run)
    file.write_bytes(whole)


def _line(content: Any, rest: bytes) -> bytes:
    return json.dumps(content).encode() + b"\n" + rest


@FEW
@given(
    content=damaged(b'{"figure": "avg@1", "value": 0.5, "step": 3}')
    | st.builds(lambda made: json.dumps(made).encode(), json_values())
)
def test_no_record_of_the_best_student_is_another_kind_of_error(tmp_path: Path, content: bytes):
    (tmp_path / BEST).mkdir(exist_ok=True)
    (tmp_path / BEST / BEST_RECORD).write_bytes(content)
    try:
        found = read_best(tmp_path)
        assert found is not None and isinstance(found["step"], int)
        f"{found['figure']} {found['value']:.1%}"
    except OURS as error:
        assert BEST_RECORD in str(error)


@FEW
@given(
    content=damaged(b'{"pid": 1, "host": "a", "namespace": null, "started": 1.0}')
    | st.builds(
        lambda made: json.dumps(made).encode(), altered({"pid": 1, "host": "a", "started": 1.0})
    )
)
def test_no_lock_is_another_kind_of_error(tmp_path: Path, content: bytes):
    def without_locks(file: object) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / LOCK).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        # Where a file system has none, what the file says is all there is.
        patch.setattr(lock, "try_lock", without_locks)
        try:
            with RunLock(tmp_path):
                pass
        except OSError as error:
            assert str(tmp_path) in str(error)
