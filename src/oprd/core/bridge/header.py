"""The header of a bridge's file: what each version of it may hold.

Letters: P pairs, S student width, H teacher width, R rank of a pair, C components of a pair.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from oprd.core.bridge.bases import BASES, HEADS
from oprd.core.bridge.check import checked_bases, checked_pairs, checked_rank, checked_width
from oprd.core.layers import LayerPair

FORMAT_VERSION = 2
HEADER = "oprd.bridge"

_HeaderTypes = dict[str, type | tuple[type, ...]]
# Of version 1, in which all pairs have one rank and one basis.
_FIRST_TYPES: _HeaderTypes = {
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
_HEADER_TYPES: dict[int, _HeaderTypes] = {
    1: _FIRST_TYPES,
    2: {
        **_FIRST_TYPES,
        "rank": list,
        "basis": list,
        "components": list,
        "unreachable": list,
        "heads_metric": (str, type(None)),
    },
}


def checked_header(path: Path, text: str) -> dict[str, Any]:
    """The header of a file, of either version.

    Raises:
        ValueError: it is not JSON, not of a known version, or not as that version has it.
    """
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: the bridge's header is not JSON ({error}).") from None
    version = header.get("version") if isinstance(header, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version not in _HEADER_TYPES:
        known = " and ".join(map(str, _HEADER_TYPES))
        raise ValueError(
            f"{path} is of bridge format version {version!r}, this oprd reads {known}."
        )
    types = _HEADER_TYPES[version]
    if header.keys() != types.keys():
        raise ValueError(
            f"{path}: the header of a bridge of version {version} holds {sorted(types)}, got "
            f"{sorted(header)}."
        )
    for name, kind in types.items():
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
    widths = (
        checked_width("student_dim", header["student_dim"]),
        checked_width("teacher_dim", header["teacher_dim"]),
    )
    if header["version"] == 1:
        checked_rank(header["rank"], *widths)
        if header["basis"] not in BASES:
            raise ValueError(f"basis must be one of {BASES}, got {header['basis']!r}.")
    else:
        _check_by_pair(header, pairs, *widths)
    if header["rows"] < 0:
        raise ValueError(f"rows must be 0 or more, got {header['rows']}.")
    for name in ("cosine", "explained_variance", "ridge"):
        values = header[name]
        # Whole numbers in JSON have no bound, so that one may be beyond every float.
        finite = all(isinstance(v, int | float) and abs(v) <= sys.float_info.max for v in values)
        if len(values) != len(pairs) or not finite:
            raise ValueError(f"{name} must be {len(pairs)} finite numbers, got {values!r}.")


def _check_by_pair(
    header: Mapping[str, Any], pairs: Sequence[LayerPair], student_dim: int, teacher_dim: int
) -> None:
    """What version 2 says of each pair."""
    bases = checked_bases(header["basis"], pairs, header["heads_metric"])
    for name in ("rank", "components", "unreachable"):
        if len(header[name]) != len(pairs):
            raise ValueError(f"{name} must be of {len(pairs)} pairs, got {header[name]!r}.")
    for rank, components, basis in zip(header["rank"], header["components"], bases, strict=True):
        checked_rank(rank, student_dim, teacher_dim, basis)
        checked_width("components", components)
        # Of heads as many as the student's can tell apart.
        known = range(rank, student_dim + 1) if basis == HEADS else (teacher_dim,)
        if components not in known:
            raise ValueError(
                f"components of basis {basis!r} and rank {rank} cannot be {components}."
            )
    for value, basis in zip(header["unreachable"], bases, strict=True):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and (
            basis != HEADS or not (number and abs(value) <= sys.float_info.max)
        ):
            raise ValueError(
                f"unreachable must be finite numbers or null, null but for heads, got {value!r}."
            )


def expected_shapes(header: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors that a header promises."""
    pairs, student, teacher = len(header["pairs"]), header["student_dim"], header["teacher_dim"]
    if header["version"] == 1:
        rank, components = (pairs, header["rank"]), (pairs, teacher)
    else:
        rank, components = (sum(header["rank"]),), (sum(header["components"]),)
    return {
        "student_projection": (*rank, student),
        "student_mean": (pairs, student),
        "teacher_projection": (*rank, teacher),
        "teacher_mean": (pairs, teacher),
        "eigenvalues": components,
        "r_squared": components,
    }


def as_version_2(
    header: dict[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    """A file of version 1 as version 2 has it."""
    if header["version"] > 1:
        return header, tensors
    pairs, given = len(header["pairs"]), ("student_mean", "teacher_mean")
    of_each = {
        "rank": [header["rank"]] * pairs,
        "basis": [header["basis"]] * pairs,
        "components": [header["teacher_dim"]] * pairs,
        "unreachable": [None] * pairs,
        "heads_metric": None,
    }
    flat = {
        name: tensor if name in given else tensor.flatten(0, 1) for name, tensor in tensors.items()
    }
    return {**header, **of_each}, flat
