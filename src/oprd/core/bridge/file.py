"""A bridge as one safetensors file; `docs/bridge-format.md` describes it for other readers.

Letters: P pairs, S student width, H teacher width, R rank.
"""

import hashlib
import json
import os
import secrets
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from oprd.core.bridge.check import checked_pairs, checked_rank, checked_width
from oprd.core.bridge.solve import BASES
from oprd.core.layers import LayerPair

FORMAT_VERSION = 1
HEADER, DIGEST = "oprd.bridge", "oprd.bridge.sha256"

_HEADER_TYPES: dict[str, type | tuple[type, ...]] = {
    "version": int,
    "rank": int,
    "student_dim": int,
    "teacher_dim": int,
    "pairs": list,
    "rows": int,
    "basis": str,
    "center": bool,
    "ridge": list,
    "cosine": list,
    "explained_variance": list,
    "provenance": (dict, type(None)),
}
_PROJECTION_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class BridgeContents:
    """What the file holds: the header's entries, and the tensors by name."""

    pairs: Sequence[LayerPair]
    tensors: Mapping[str, Tensor]
    rows: int
    basis: str
    center: bool
    ridge: Sequence[float]
    cosine: Sequence[float]
    explained_variance: Sequence[float]
    provenance: Mapping[str, Any] | None


def write_bridge(path: str | os.PathLike[str], contents: BridgeContents) -> None:
    """Write a bridge's file atomically, with the mode that the umask gives.

    Raises:
        ValueError: a number is not finite.
        OSError: the folder does not exist or cannot be written, or the path is not a file's.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a regular file: a bridge cannot be saved there.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} of the bridge does not exist.")
    tensors = {name: t.detach().cpu().contiguous() for name, t in contents.tensors.items()}
    _check_finite(path, tensors)
    header = json.dumps(_header(contents), allow_nan=False, sort_keys=True)
    metadata = {HEADER: header, DIGEST: _digest(header, tensors)}
    # Not safetensors' save_file, which sets mode 0600 whatever the umask says.
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(unfinished, "xb") as file:
            file.write(_ordered(save(tensors, metadata)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_bridge(path: str | os.PathLike[str]) -> BridgeContents:
    """Read a bridge's file, refusing whatever does not fit its own header.

    Warns:
        UserWarning: the file has no provenance.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a bridge, of another format version, damaged, or maps every
            state of a layer to zero.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no bridge at {path}: fit one with `oprd bridge fit`.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            text = metadata.get(HEADER)
            if text is None:
                raise ValueError(f"{path} is a safetensors file, but not a bridge.")
            header = _checked_header(path, text)
            expected = _expected_shapes(header)
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if found != expected:
                raise ValueError(f"{path} should hold tensors {expected}, but holds {found}.")
            tensors = {name: file.get_tensor(name) for name in expected}
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}); no other kind is read."
        ) from None
    _check_tensors(path, tensors)
    if metadata.get(DIGEST) != _digest(text, tensors):
        raise ValueError(f"{path} is damaged: its contents do not match their checksum.")
    _check_projects(path, tensors, header["pairs"])
    if not header["provenance"]:
        warnings.warn(
            f"{path} does not say which models and positions it was fitted on, so that it cannot "
            "be checked against those it is used with.",
            stacklevel=3,
        )
    fields = ("rows", "basis", "center", "ridge", "cosine", "explained_variance", "provenance")
    return BridgeContents(
        pairs=checked_pairs(header["pairs"]),
        tensors=tensors,
        **{name: header[name] for name in fields},
    )


def _ordered(data: bytes) -> bytes:
    """The same safetensors file with its names in order, which safetensors leaves to chance."""
    end = 8 + int.from_bytes(data[:8], "little")
    names = json.dumps(json.loads(data[8:end]), sort_keys=True).encode()
    names += b" " * (-len(names) % 8)  # tensors start at a multiple of 8 bytes
    return len(names).to_bytes(8, "little") + names + data[end:]


def _header(contents: BridgeContents) -> dict[str, Any]:
    _, rank, student_dim = contents.tensors["student_projection"].shape
    return {
        "version": FORMAT_VERSION,
        "rank": rank,
        "student_dim": student_dim,
        "teacher_dim": contents.tensors["teacher_projection"].shape[2],
        "pairs": [list(pair) for pair in contents.pairs],
        "rows": contents.rows,
        "basis": contents.basis,
        "center": contents.center,
        "ridge": list(contents.ridge),
        "cosine": list(contents.cosine),
        "explained_variance": list(contents.explained_variance),
        "provenance": contents.provenance,
    }


def _checked_header(path: Path, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: the bridge's header is not JSON ({error}).") from None
    version = header.get("version") if isinstance(header, dict) else None
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise ValueError(
            f"{path} is of bridge format version {version!r}, this oprd reads {FORMAT_VERSION}."
        )
    if header.keys() != _HEADER_TYPES.keys():
        raise ValueError(
            f"{path}: a bridge's header holds {sorted(_HEADER_TYPES)}, got {sorted(header)}."
        )
    for name, kind in _HEADER_TYPES.items():
        value = header[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{path}: {name} of the bridge's header cannot be {value!r}.")
    try:
        _check_values(header)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
    return header


def _check_values(header: Mapping[str, Any]) -> None:
    pairs = checked_pairs(header["pairs"])
    widths = [checked_width(name, header[name]) for name in ("student_dim", "teacher_dim")]
    checked_rank(header["rank"], *widths)
    if header["basis"] not in BASES:
        raise ValueError(f"basis must be one of {BASES}, got {header['basis']!r}.")
    if header["rows"] < 0:
        raise ValueError(f"rows must be 0 or more, got {header['rows']}.")
    for name in ("cosine", "explained_variance", "ridge"):
        values = header[name]
        # Whole numbers in JSON have no bound, so that one may be beyond every float.
        finite = all(isinstance(v, int | float) and abs(v) <= sys.float_info.max for v in values)
        if len(values) != len(pairs) or not finite:
            raise ValueError(f"{name} must be {len(pairs)} finite numbers, got {values!r}.")


def _expected_shapes(header: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    pairs, rank = len(header["pairs"]), header["rank"]
    student, teacher = header["student_dim"], header["teacher_dim"]
    return {
        "student_projection": (pairs, rank, student),
        "student_mean": (pairs, student),
        "teacher_projection": (pairs, rank, teacher),
        "teacher_mean": (pairs, teacher),
        "eigenvalues": (pairs, teacher),
        "r_squared": (pairs, teacher),
    }


def _check_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    dtypes = {name: tensor.dtype for name, tensor in tensors.items()}
    spectra = {dtypes.pop("eigenvalues"), dtypes.pop("r_squared")}
    if spectra != {torch.float64}:
        raise ValueError(f"{path}: eigenvalues and r_squared must be float64, got {spectra}.")
    if len(set(dtypes.values())) != 1 or dtypes["student_mean"] not in _PROJECTION_DTYPES:
        raise ValueError(f"{path}: projections and means must be of one float dtype, got {dtypes}.")
    _check_finite(path, tensors)


def _check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{path}: {name} of the bridge holds a NaN or an infinity.")


def _check_projects(path: Path, tensors: Mapping[str, Tensor], pairs: Sequence[Any]) -> None:
    for place, pair in enumerate(pairs):
        for side, layer in zip(("student", "teacher"), pair, strict=True):
            if not tensors[f"{side}_projection"][place].any():
                raise ValueError(
                    f"{path} maps every state of the {side}'s layer {layer} to zero, so that "
                    "nothing could be learned through it: fit it again with `oprd bridge fit`."
                )


def _digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the header and then of the tensors' bytes in the order of their names."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        digest.update(tensors[name].view(torch.uint8).numpy().data)
    return digest.hexdigest()
