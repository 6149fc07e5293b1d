"""A bridge's file: whatever it holds, it is that bridge or refused in a sentence."""

import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oprd.core.bridge import Bridge
from tests.core.bridge.test_file import PROVENANCE, rewrite
from tests.core.bridge.test_module import make_bridge
from tests.fuzzing.drawn import FEW, damaged, json_values

NAMES = ("version", "rank", "components", "student_dim", "teacher_dim", "pairs", "rows", "basis",
         "heads_metric", "center", "ridge", "cosine", "explained_variance", "unreachable",
         "provenance", "other")  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("bridge") / "bridge.safetensors"
    make_bridge(provenance=PROVENANCE).save(path)
    return path.read_bytes()


@FEW
@given(data=st.data())
def test_no_bytes_of_a_bridge_are_read_as_another_one(
    tmp_path: Path, whole: bytes, data: st.DataObject
):
    path = tmp_path / "bridge.safetensors"
    # Half of the damage is where names and shapes stand.
    header = 8 + int.from_bytes(whole[:8], "little")
    front = data.draw(st.booleans())
    found = data.draw(damaged(whole[:header] if front else whole))
    path.write_bytes(found + whole[header:] if front else found)
    try:
        loaded = Bridge.load(path)
    except ValueError:
        return
    loaded.save(path)
    assert path.read_bytes() == whole


@FEW
@given(
    changed=st.dictionaries(st.sampled_from(NAMES), json_values(), min_size=1, max_size=2),
    missing=st.sets(st.sampled_from(NAMES), max_size=1),
)
def test_no_header_of_a_bridge_is_another_kind_of_error(
    tmp_path: Path, whole: bytes, changed: dict[str, Any], missing: set[str]
):
    path = tmp_path / "bridge.safetensors"
    path.write_bytes(whole)

    def change(header: dict[str, Any], tensors: object) -> None:
        header.update(changed)
        for name in missing:
            header.pop(name, None)

    rewrite(path, change)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one without provenance is read, and says so
        try:
            loaded = Bridge.load(path)
            loaded.save(path)
        except ValueError as error:
            assert str(path) in str(error)
