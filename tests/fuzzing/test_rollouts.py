"""Rollouts and batches that were kept: a file is read or refused in a sentence."""

import json
from dataclasses import asdict
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from oprd.calibration.rollouts import Rollout
from oprd.guards.broken import BrokenBatch
from oprd.runs.rowfile import parse_rows
from tests.fuzzing.drawn import FEW, altered, damaged

ROLLOUT = asdict(Rollout(0, "a", [1], [2], "stop"))


@FEW
@given(data=st.data())
def test_no_rollout_of_a_fit_is_another_kind_of_error(tmp_path: Path, data: st.DataObject):
    path = tmp_path / "rollouts.jsonl"
    made = [{"format": 1}, data.draw(altered(ROLLOUT)), ROLLOUT]
    path.write_text("".join(json.dumps(line) + "\n" for line in made))
    try:
        _, rows, _ = parse_rows(path, Rollout)
        assert all(isinstance(hash(row.key), int) for row in rows)
    except ValueError as error:
        assert str(path) in str(error)


@FEW
@given(data=st.data())
def test_no_batch_that_was_kept_is_another_kind_of_error(tmp_path: Path, data: st.DataObject):
    whole = BrokenBatch([{}], 1, 0, "x", {"scale": "none"}, [(1, 1)]).save(tmp_path / "whole")
    file = tmp_path / "rank-0.safetensors"
    file.write_bytes(data.draw(damaged(whole.read_bytes())))
    try:
        BrokenBatch.load(file)
    except ValueError as error:
        assert str(file) in str(error)
