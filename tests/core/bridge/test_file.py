"""The bridge's file: bit-identical, whole or not at all, and nothing else is read."""

import json
import os
import pickle
import re
import stat
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from oprd.core.bridge import Bridge
from tests.core.bridge.test_module import H, P, R, make_bridge

PROVENANCE = {
    "student": {"model": "student", "revision": "abc", "tokenizer": "t"},
    "teacher": {"model": "teacher", "weights": "sha256:def", "tokenizer": "t"},
    "positions": {"spec": "last_k", "k": 2000},
}
TENSORS = ("student_projection", "student_mean", "teacher_projection", "teacher_mean")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "bridge.safetensors"
    make_bridge(provenance=PROVENANCE).save(path)
    return path


def rewrite(path, change, *, sign=True):
    """Change a saved bridge's tensors and header as an attacker or another tool would."""
    from oprd.core.bridge.file import DIGEST, HEADER, _digest

    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[HEADER])
    tensors = load_file(path)
    change(header, tensors)
    text = json.dumps(header)
    metadata = {HEADER: text}
    if sign:
        metadata[DIGEST] = _digest(text, {n: t.contiguous() for n, t in tensors.items()})
    save_file(tensors, path, metadata)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_round_trip_is_bit_identical(tmp_path, dtype):
    path = tmp_path / "bridge.safetensors"
    bridge = make_bridge(dtype, provenance=PROVENANCE, center=False, basis="rrr")
    bridge.save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = Bridge.load(path)
    for name in TENSORS:
        assert getattr(loaded, name).dtype == dtype
        assert torch.equal(getattr(loaded, name), getattr(bridge, name))
    for name in ("pairs", "rows", "basis", "center", "rank", "provenance"):
        assert getattr(loaded, name) == getattr(bridge, name)
    assert loaded.provenance == PROVENANCE
    assert list(loaded.statistics) == [2, 1]
    for layer, fit in bridge.statistics.items():
        other = loaded.statistics[layer]
        assert torch.equal(other.eigenvalues, fit.eigenvalues)
        assert torch.equal(other.r_squared, fit.r_squared)
        for name in ("cosine", "explained_variance", "ridge"):
            assert getattr(other, name) == getattr(fit, name)


def test_equal_bridges_have_equal_files(tmp_path, path):
    make_bridge(provenance=PROVENANCE).save(tmp_path / "other")
    assert path.read_bytes() == (tmp_path / "other").read_bytes()


@pytest.mark.parametrize("provenance", [None, {}])
def test_a_bridge_without_provenance_loads_with_a_warning(path, provenance):
    make_bridge(provenance=provenance).save(path)
    with pytest.warns(UserWarning, match="does not say which models"):
        assert Bridge.load(path).provenance is None


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_files_mode_honours_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        make_bridge().save(tmp_path / "bridge.safetensors")
    finally:
        os.umask(before)
    mode = stat.S_IMODE((tmp_path / "bridge.safetensors").stat().st_mode)
    assert mode == 0o666 & ~umask


def test_a_failed_save_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    before = path.read_bytes()

    def fail(_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        make_bridge(rows=1).save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_saving_into_no_folder_or_onto_no_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        make_bridge().save(tmp_path / "missing" / "bridge.safetensors")
    with pytest.raises(OSError, match="not a regular file"):
        make_bridge().save(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_bridge_with_a_nan_is_not_saved(tmp_path):
    bridge = make_bridge()
    bridge.student_mean[0, 0] = torch.nan
    with pytest.raises(ValueError, match="student_mean of the bridge holds a NaN"):
        bridge.save(tmp_path / "bridge.safetensors")
    assert os.listdir(tmp_path) == []


def test_no_bridge_file_says_how_to_get_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="fit one with `oprd bridge fit`"):
        Bridge.load(tmp_path / "missing.safetensors")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize("name", ["bridge.safetensors", "bridge.pt", "bridge.pkl", "bridge"])
@pytest.mark.parametrize("kind", ["pickle", "torch", "garbage", "empty"])
def test_a_pickle_under_any_name_is_refused_and_runs_nothing(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "torch":
        torch.save({"student_projection": Trap()}, path)
    else:
        content = {"pickle": pickle.dumps(Trap()), "garbage": b"\xff" * 100, "empty": b""}
        path.write_bytes(content[kind])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        Bridge.load(path)


def test_a_cut_file_is_refused(path):
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        Bridge.load(path)


def test_any_flipped_byte_of_a_tensor_or_of_the_header_is_noticed(path):
    content = bytearray(path.read_bytes())
    digits = content.index(b'\\"rows\\": 1000') + len(b'\\"rows\\": 100')
    for place in (len(content) - 1, len(content) - 400, digits):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged"):
            Bridge.load(path)


def test_another_safetensors_file_is_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="a safetensors file, but not a bridge"):
        Bridge.load(tmp_path / "model.safetensors")


def set_header(**entries):
    return lambda header, tensors: header.update(entries)


def set_tensor(name, value):
    return lambda header, tensors: tensors.update({name: value(tensors)})


def zero(tensors, *names, place=slice(None)):
    for name in names:
        tensors[name][place] = 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_header(version=3), "format version 3, this oprd reads 1 and 2"),
        (set_header(version="1"), "format version '1'"),
        (set_header(version=True), "format version True"),
        (set_header(version=1), "the header of a bridge of version 1 holds"),
        (lambda header, tensors: header.pop("version"), "format version None"),
        (lambda header, tensors: header.pop("rows"), "the header of a bridge of version 2 holds"),
        (set_header(extra=1), "the header of a bridge of version 2 holds"),
        (set_header(rank=[R, 10**9]), "rank 1000000000 is above a width"),
        (set_header(rank=[R, 0]), "rank must be an integer of at least 1"),
        (set_header(rank=[True, R]), "rank must be an integer of at least 1, got True"),
        (set_header(rank=[R]), "rank must be of 2 pairs"),
        (set_header(rank=R), "rank of the bridge's header cannot be 3"),
        (set_header(rank=[2, R]), "should hold tensors"),
        (set_header(components=[H, H + 1]), "components of basis 'pca' and rank 3 cannot be 8"),
        (set_header(components=[H, 0]), "components must be an integer of at least 1, got 0"),
        (set_header(unreachable=[None]), "unreachable must be of 2 pairs"),
        (set_header(unreachable=[None, "a"]), "unreachable must be finite numbers or null"),
        (set_header(basis=["heads", "pca"]), "basis must be one of|heads_metric must be one of"),
        (
            set_header(basis=["pca", "heads"], heads_metric="fisher"),
            "is for the last pair: lower states have no LM head",
        ),
        (set_header(heads_metric="fisher"), "heads_metric must be one of None with basis 'pca'"),
        (set_header(basis=["pca"]), "basis must be one of .* for each of 2 pairs"),
        (set_header(student_dim=6), "should hold tensors"),
        (set_header(pairs=[[1, 1]]), "for each of 1 pairs"),
        (set_header(pairs=[[1, 1], [1, 2]]), "repeat"),
        (set_header(pairs=[1, 2]), "not iterable"),
        (set_header(pairs=[["1", 1], [2, 1]]), "both from 1"),
        (set_header(basis=["other", "pca"]), "basis must be one of"),
        (set_header(basis="pca"), "basis of the bridge's header cannot be 'pca'"),
        (set_header(center=1), "center of the bridge's header cannot be 1"),
        (set_header(ridge=[0.1, float("nan")]), "ridge must be 2 finite numbers"),
        (set_header(rows=-1), "rows must be 0 or more, got -1"),
        (set_header(cosine=[0.5, float("inf")]), "cosine must be 2 finite numbers"),
        (set_header(cosine=["a", "b"]), "cosine must be 2 finite numbers"),
        (set_header(cosine=[0.5, 10**400]), "cosine must be 2 finite numbers"),
        (set_header(provenance=[]), "provenance of the bridge's header cannot be"),
        (lambda header, tensors: tensors.pop("student_mean"), "should hold tensors"),
        (set_tensor("extra", lambda t: torch.zeros(1)), "should hold tensors"),
        (set_tensor("student_mean", lambda t: t["student_mean"][:1]), "should hold tensors"),
        (set_tensor("student_mean", lambda t: t["student_mean"].float()), "of one float dtype"),
        (set_tensor("eigenvalues", lambda t: t["eigenvalues"].float()), "must be float64"),
        (set_tensor("r_squared", lambda t: t["r_squared"] * torch.nan), "r_squared .* NaN"),
        (set_tensor("teacher_mean", lambda t: t["teacher_mean"] / 0), "teacher_mean .* infinity"),
        (lambda header, tensors: zero(tensors, *tensors), "the student's layer 2 to zero"),
        (
            lambda header, tensors: zero(tensors, "teacher_projection"),
            r"bridge\.safetensors maps every state of the teacher's layer 3 to zero.* `oprd bridge",
        ),
        (
            lambda header, tensors: zero(tensors, "student_projection", place=slice(R, None)),
            "the student's layer 1 to zero",
        ),
    ],
)
def test_a_file_that_does_not_fit_the_format_is_refused(path, change, message):
    rewrite(path, change)
    with pytest.raises(ValueError, match=message):
        Bridge.load(path)


def as_version_1(header, tensors):
    """The file as version 1 had it."""
    for name in ("components", "unreachable", "heads_metric"):
        header.pop(name)
    header.update(version=1, rank=header["rank"][0], basis=header["basis"][0])
    for name in ("student_projection", "teacher_projection", "eigenvalues", "r_squared"):
        tensors[name] = tensors[name].unflatten(0, (P, -1))


def test_a_file_of_version_1_is_the_same_bridge(path):
    bridge = Bridge.load(path)
    rewrite(path, as_version_1)
    loaded = Bridge.load(path)
    for name in TENSORS:
        assert torch.equal(getattr(loaded, name), getattr(bridge, name))
    for name in ("pairs", "ranks", "bases", "rows", "center", "heads_metric", "provenance"):
        assert getattr(loaded, name) == getattr(bridge, name)
    for layer, fit in bridge.statistics.items():
        assert torch.equal(loaded.statistics[layer].eigenvalues, fit.eigenvalues)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_header(unreachable=[None, None]), "a bridge of version 1 holds"),
        (set_header(heads_metric="fisher"), "a bridge of version 1 holds"),
        (set_header(rank=[R, R]), "rank of the bridge's header cannot be"),
        (set_header(basis="heads"), "basis must be one of"),
        (set_header(basis=["pca", "pca"]), "basis of the bridge's header cannot be"),
        (set_header(rank=10**9), "rank 1000000000 is above a width"),
        (set_header(rank=2), "should hold tensors"),
        (
            lambda header, tensors: zero(tensors, "student_projection", place=1),
            "the student's layer 1 to zero",
        ),
    ],
)
def test_a_file_of_version_1_is_held_to_that_version(path, change, message):
    rewrite(path, as_version_1)
    rewrite(path, change)
    with pytest.raises(ValueError, match=message):
        Bridge.load(path)


def test_integer_projections_are_refused(path):
    def to_int(header, tensors):
        tensors.update({name: tensors[name].long() for name in TENSORS})

    rewrite(path, to_int)
    with pytest.raises(ValueError, match="of one float dtype"):
        Bridge.load(path)


def test_a_file_without_its_checksum_is_refused(path):
    rewrite(path, lambda header, tensors: None, sign=False)
    with pytest.raises(ValueError, match="damaged"):
        Bridge.load(path)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000])
def test_a_header_that_is_no_json_object_is_refused(path, text):
    save_file({"weight": torch.zeros(1)}, path, {"oprd.bridge": text})
    with pytest.raises(ValueError, match=r"header is not JSON|format version None"):
        Bridge.load(path)


def test_the_documented_reader_reads_the_file(path):
    document = Path("docs/bridge-format.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", document, flags=re.DOTALL)
    scope = {}
    exec(code, scope)
    header, arrays = scope["read_bridge"](path)
    bridge = Bridge.load(path)
    assert header["pairs"] == [[2, 3], [1, 3]]
    assert set(header) == set(
        re.findall(
            r"^\| `(\w+)` \| (?:integer|pairs|text|true|number|list|ob)",
            document,
            flags=re.MULTILINE,
        )
    )
    for name in TENSORS:
        assert arrays[name].tolist() == getattr(bridge, name).tolist()
    state = torch.randn(5, dtype=torch.float64)
    projected = scope["project_student"](header, arrays, 1, state.tolist())
    torch.testing.assert_close(
        torch.tensor(projected), bridge.project_student(1, state), check_dtype=False
    )
