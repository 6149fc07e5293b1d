"""What a server writes for a request, and what it takes for one."""

import re
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from oprd.runs.manifest import MANIFEST, read_manifest
from oprd.serving import delivery
from oprd.serving.delivery import asked_of, deliver


def test_states_that_find_no_room_say_so_and_leave_nothing(tmp_path: Path, monkeypatch):
    def full(_, file: Path) -> None:
        file.write_bytes(b"half of it")
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(delivery, "save_file", full)
    with pytest.raises(SafetensorError):
        deliver(tmp_path / "one", torch.ones(1, 1, 2), torch.ones(1), [1], "served")
    assert [file.name for file in (tmp_path / "one").iterdir()] == [MANIFEST]
    manifest = read_manifest(tmp_path / "one")
    assert manifest is not None
    assert re.match(r"it could not write them \(.*No space left", manifest["problem"])


def test_states_that_are_there_are_not_written_over(tmp_path: Path):
    def content() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (tmp_path / "one").iterdir()}

    deliver(tmp_path / "one", torch.ones(1, 1, 2), torch.ones(1), [1], "served")
    before = content()
    with pytest.raises(FileExistsError):
        deliver(tmp_path / "one", torch.zeros(1, 1, 2), torch.ones(1), [1], "served")
    assert content() == before


@pytest.mark.parametrize(
    "asked",
    [
        {"name": "../../etc", "layers": [1]},
        {"name": "0" * 31, "layers": [1]},
        {"name": "0" * 32, "layers": []},
        {"name": "0" * 32, "layers": ["1"]},
        {"name": "0" * 32},
        "all",
    ],
)
def test_a_request_cannot_name_another_folder(asked):
    with pytest.raises(ValueError, match=r"name must be|layers must be"):
        asked_of({"hidden_states": asked})
    assert asked_of({"hidden_states": {"name": "0" * 32, "layers": [1]}}) == ("0" * 32, [1])
    assert asked_of({}) is None and asked_of(None) is None
