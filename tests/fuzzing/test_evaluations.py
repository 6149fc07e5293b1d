"""Files of samples: whatever a line holds, the file is read or refused in a sentence."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oprd.evaluation.records import RecordFile, read_records
from oprd.evaluation.result import Evaluation
from oprd.reports.evaluations import read_evaluations
from tests.evaluation.samples import evaluation
from tests.fuzzing.drawn import FEW, OURS, altered, damaged, json_values

WHOLE = evaluation({"a": [True, False], "b": [True, True]})
HEADER = {"format": 1, **WHOLE.header}
LINES = [HEADER, *map(asdict, WHOLE.records)]


def text(lines: list) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def read(path: Path) -> None:
    """All that reads a file of samples, and what is computed of it."""
    content = path.read_bytes()
    for reader in (read_records, Evaluation.from_file):
        try:
            found = reader(path)
            if isinstance(found, Evaluation):
                assert found.summary.samples and found.figures()
        except OURS as error:
            assert str(error)
    try:
        with RecordFile(path, dict(WHOLE.header)):
            pass
    except OURS:
        assert path.read_bytes() == content
    # What cannot be shown in a report is named there.
    evaluations, problems = read_evaluations(path.parents[2])
    assert all(one.summary for one in evaluations) and all(map(str, problems))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "evaluations" / "student" / "task.jsonl"
    path.parent.mkdir(parents=True)
    return path


@FEW
@given(data=st.data())
def test_no_line_of_an_evaluation_is_another_kind_of_error(path: Path, data: st.DataObject):
    lines = list(LINES)
    place = data.draw(st.integers(0, len(lines) - 1))
    lines[place] = data.draw(altered(lines[place]) | json_values())
    path.write_bytes(text(lines))
    read(path)


@FEW
@given(content=damaged(text(LINES)))
def test_no_bytes_of_an_evaluation_are_another_kind_of_error(path: Path, content: bytes):
    path.write_bytes(content)
    read(path)
