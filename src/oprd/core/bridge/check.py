"""What a fit and a bridge refuse, each in one sentence that names the value and the way out."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from oprd.core.bridge.bases import BASES, HEADS, PAIR_BASES, by_pair, joined, last_pair
from oprd.core.bridge.heads import METRICS
from oprd.core.layers import LayerPair


def checked_pairs(pairs: Sequence[LayerPair | tuple[int, int]]) -> tuple[LayerPair, ...]:
    """Layer pairs in the order given.

    Raises:
        ValueError: there is none, one is not two layer numbers, or a student layer repeats.
    """
    checked = []
    for pair in pairs:
        layers = tuple(pair)
        if len(layers) != 2 or not all(_is_positive_int(layer) for layer in layers):
            raise ValueError(f"a pair is a student and a teacher layer, both from 1, got {pair!r}.")
        checked.append(LayerPair(*layers))
    if not checked:
        raise ValueError("no layer pair: a bridge needs at least one.")
    student = [pair.student for pair in checked]
    if len(set(student)) < len(student):
        repeated = sorted({layer for layer in student if student.count(layer) > 1})
        raise ValueError(f"student layers {repeated} repeat in the pairs: name each once.")
    return tuple(checked)


def checked_width(name: str, width: int) -> int:
    """A width of at least 1.

    Raises:
        ValueError: it is not.
    """
    if not _is_positive_int(width):
        raise ValueError(f"{name} must be an integer of at least 1, got {width!r}.")
    return width


def checked_rank(rank: int, student_dim: int, teacher_dim: int, basis: str = BASES[0]) -> int:
    """A rank that both widths can hold; that of LM heads need not fit the teacher's.

    Raises:
        ValueError: it is below 1 or above a width.
    """
    if not _is_positive_int(rank):
        raise ValueError(f"rank must be an integer of at least 1, got {rank!r}.")
    most = student_dim if basis == HEADS else min(student_dim, teacher_dim)
    if rank > most:
        raise ValueError(
            f"rank {rank} is above a width: the student has {student_dim}, the teacher "
            f"{teacher_dim}; lower it to {most} or less."
        )
    return rank


def checked_bases(
    basis: str | Sequence[str], pairs: Sequence[LayerPair], heads_metric: str | None
) -> tuple[str, ...]:
    """The basis of each pair.

    Args:
        basis: of all pairs, or of each.
        pairs: the layer pairs.
        heads_metric: of the pair of LM heads.

    Raises:
        ValueError: a basis is unknown, there is not one per pair, a pair below the last is to be
            read off the LM heads, or these have no known metric.
    """
    if isinstance(basis, str):
        bases = by_pair(basis, pairs)
    else:
        bases = tuple(basis)
        if len(bases) != len(pairs) or not set(bases) <= set(PAIR_BASES):
            raise ValueError(
                f"basis must be one of {', '.join(PAIR_BASES)} for each of {len(pairs)} pairs, got "
                f"{list(bases)}."
            )
        lower = [b for b, pair in zip(bases, pairs, strict=True) if pair != last_pair(pairs)]
        if HEADS in lower:
            raise ValueError("basis='heads' is for the last pair: lower states have no LM head.")
    known = METRICS if HEADS in bases else (None,)
    if heads_metric not in known:
        raise ValueError(
            f"heads_metric must be one of {', '.join(map(str, known))} with basis "
            f"{joined(bases)!r}, got {heads_metric!r}."
        )
    return bases


def checked_rows(source: str, rows: Mapping[int, Tensor], layers: Sequence[int], width: int) -> int:
    """The number of rows that all layers share.

    Raises:
        ValueError: a layer is missing, or its rows are not floating [N, width] with one N.
    """
    missing = [layer for layer in layers if layer not in rows]
    if missing:
        raise ValueError(f"{source} rows of layers {missing} are missing: got {sorted(rows)}.")
    count = rows[layers[0]].shape[0] if rows[layers[0]].ndim else 0
    for layer in layers:
        tensor = rows[layer]
        if tensor.ndim != 2 or tensor.shape[1] != width or not tensor.is_floating_point():
            raise ValueError(
                f"{source} rows of layer {layer} must be floating [N, {width}], "
                f"got {tensor.dtype} {tuple(tensor.shape)}."
            )
        if tensor.shape[0] != count:
            raise ValueError(
                f"{source} layer {layer} has {tensor.shape[0]} rows, "
                f"layer {layers[0]} has {count}: all must be the same positions."
            )
    return count


def check_shapes(num_pairs: int, tensors: Mapping[str, Sequence[Tensor]]) -> None:
    """Refuse the tensors of a bridge, one a pair, that do not fit each other.

    Raises:
        ValueError: shapes do not fit, or dtypes differ.
    """
    shapes = {name: [tuple(tensor.shape) for tensor in of] for name, of in tensors.items()}
    dtypes = {tensor.dtype for of in tensors.values() for tensor in of}
    fits = all(len(of) == num_pairs for of in shapes.values()) and len(dtypes) == 1
    widths: set[tuple[int, ...]] = set()
    for *projections, student_mean, teacher_mean in zip(*shapes.values(), strict=False):
        student, teacher = projections
        fits = fits and len(student) == len(teacher) == 2 and student[0] == teacher[0]
        widths.add(student_mean + teacher_mean)
        fits = fits and student_mean + teacher_mean == student[1:] + teacher[1:]
    if not fits or len(widths) != 1:
        raise ValueError(
            f"a bridge of {num_pairs} pairs needs projections [R, width] and means [width] for "
            f"each of them, of one dtype, got {shapes}."
        )


def checked_provenance(provenance: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A copy of a bridge's provenance as its file will hold it; None if there is none.

    Raises:
        ValueError: it is not a mapping that JSON can hold.
    """
    if not provenance:
        return None
    try:
        # Through JSON, so that a bridge in memory says what its file will say.
        return json.loads(json.dumps(dict(provenance), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"provenance must be a mapping that JSON can hold: {error}") from None


def _is_positive_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
