"""A bridge as one safetensors file; `docs/bridge-format.md` describes it for other readers.

Letters: P pairs, S student width, H teacher width, R rank of a pair, C components of a pair.
"""

import hashlib
import json
import os
import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from oprd.core.bridge.check import checked_pairs
from oprd.core.bridge.header import (
    FORMAT_VERSION,
    HEADER,
    as_version_2,
    checked_header,
    expected_shapes,
)
from oprd.core.layers import LayerPair

DIGEST = "oprd.bridge.sha256"

_PROJECTION_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class BridgeContents:
    """What the file holds: the header's entries, and the tensors by name."""

    pairs: Sequence[LayerPair]
    tensors: Mapping[str, Tensor]
    rank: Sequence[int]
    components: Sequence[int]
    rows: int
    basis: Sequence[str]
    center: bool
    heads_metric: str | None
    ridge: Sequence[float]
    cosine: Sequence[float]
    explained_variance: Sequence[float]
    unreachable: Sequence[float | None]
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


def bases_in(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The basis of each pair of a bridge's file, without its tensors.

    None of a file that cannot be read, which `read_bridge` says.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = checked_header(Path(path), (file.metadata() or {}).get(HEADER, ""))
    except (OSError, SafetensorError, ValueError):
        return ()
    basis = header["basis"]
    return (basis,) if isinstance(basis, str) else tuple(basis)


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
            header = checked_header(path, text)
            expected = expected_shapes(header)
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
    header, tensors = as_version_2(header, tensors)
    _check_projects(path, tensors, header)
    if not header["provenance"]:
        warnings.warn(
            f"{path} does not say which models and positions it was fitted on, so that it cannot "
            "be checked against those it is used with.",
            stacklevel=3,
        )
    given = {field.name for field in fields(BridgeContents)} - {"pairs", "tensors"}
    return BridgeContents(
        pairs=checked_pairs(header["pairs"]),
        tensors=tensors,
        **{name: header[name] for name in given},
    )


def _ordered(data: bytes) -> bytes:
    """The same safetensors file with its names in order, which safetensors leaves to chance."""
    end = 8 + int.from_bytes(data[:8], "little")
    names = json.dumps(json.loads(data[8:end]), sort_keys=True).encode()
    names += b" " * (-len(names) % 8)  # tensors start at a multiple of 8 bytes
    return len(names).to_bytes(8, "little") + names + data[end:]


def _header(contents: BridgeContents) -> dict[str, Any]:
    return {
        "version": FORMAT_VERSION,
        "rank": list(contents.rank),
        "components": list(contents.components),
        "student_dim": contents.tensors["student_projection"].shape[1],
        "teacher_dim": contents.tensors["teacher_projection"].shape[1],
        "pairs": [list(pair) for pair in contents.pairs],
        "rows": contents.rows,
        "basis": list(contents.basis),
        "heads_metric": contents.heads_metric,
        "center": contents.center,
        "ridge": list(contents.ridge),
        "cosine": list(contents.cosine),
        "explained_variance": list(contents.explained_variance),
        "unreachable": list(contents.unreachable),
        "provenance": contents.provenance,
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


def _check_projects(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    sides = ("student", "teacher")
    projections = {
        side: tensors[f"{side}_projection"].split(list(header["rank"])) for side in sides
    }
    for place, pair in enumerate(header["pairs"]):
        for side, layer in zip(sides, pair, strict=True):
            if not projections[side][place].any():
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
