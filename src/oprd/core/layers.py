"""Layer numbers, and which of two models' layers meet.

Numbers are the indices of Transformers' `hidden_states`: 0 is the embedding, which is never
supervised, 1..L are the blocks, and L is the state after the final norm. Pairings are chosen by
name from the table here: a further one is a function, a test and a line.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from oprd.core.monotone import monotone_columns

LAYER_SPECS = '"all", "last", "last:N", "even", "odd", "every:N" or a sequence of layer numbers'


class LayerPair(NamedTuple):
    """A student layer and the teacher layer it is pulled to, each numbered in its own model."""

    student: int
    teacher: int


# Gives the similarity [L_S, L_T] of every student layer to every teacher layer.
Measure = Callable[[], Tensor]


class Pairing(NamedTuple):
    """A way to find each student layer's partner.

    Attributes:
        pair: called with the student's layers in ascending order, the depths L_S and L_T, and what
            measures the similarity of layers.
        measures: whether it asks for that, which it does once.
    """

    pair: Callable[[Sequence[int], int, int, Measure], tuple[LayerPair, ...]]
    measures: bool = False


def select_layers(spec: str | Sequence[int], num_layers: int) -> tuple[int, ...]:
    """Resolve a layer specification for a model of `num_layers` blocks.

    Args:
        spec: `"all"`; `"last"`; `"last:N"`, the last N; `"even"` (2, 4, …); `"odd"` (1, 3, …);
            `"every:N"` (N, 2N, … and always the last); or layer numbers from 1 to `num_layers`.
        num_layers: the number of blocks L.

    Returns:
        The layer numbers in ascending order.

    Raises:
        ValueError: the specification is unknown, selects nothing or more than there is, or holds a
            number that is repeated or outside 1..`num_layers`.
    """
    if num_layers < 1:
        raise ValueError(f"a model has at least one layer, got num_layers={num_layers}.")
    layers = _named(spec, num_layers) if isinstance(spec, str) else _numbered(spec, num_layers)
    if not layers:
        raise ValueError(f"layers={spec!r} selects no layer of a model with {num_layers}.")
    return layers


def proportional(
    layers: Sequence[int], num_student: int, num_teacher: int, _: Measure
) -> tuple[LayerPair, ...]:
    """The teacher layer of the same relative depth (Eq. 11).

    φ(l) = round((l − 1) / (L_S − 1) · (L_T − 1)) + 1, halves rounding to even; a student of one
    layer meets the teacher's last.
    """
    if num_student == 1:
        return (LayerPair(1, num_teacher),)
    steps, span = num_student - 1, num_teacher - 1
    return tuple(
        LayerPair(layer, _round_half_even((layer - 1) * span, steps) + 1) for layer in layers
    )


def from_end(
    layers: Sequence[int], num_student: int, num_teacher: int, _: Measure
) -> tuple[LayerPair, ...]:
    """The teacher layer as far from the last: L_S − i meets L_T − i.

    Raises:
        ValueError: a student layer is farther from the last than the teacher is deep.
    """
    offset = num_teacher - num_student
    if layers[0] + offset < 1:
        raise ValueError(
            f"layer_pairing='from_end' finds no partner for student layer {layers[0]}: it is "
            f"{num_student - layers[0]} before the last of {num_student}, and the teacher has "
            f"{num_teacher} layers. Choose layers='last:{num_teacher}', or another pairing."
        )
    return tuple(LayerPair(layer, layer + offset) for layer in layers)


def similarity(
    layers: Sequence[int], num_student: int, num_teacher: int, measure: Measure
) -> tuple[LayerPair, ...]:
    """The most similar teacher layers that do not step back as the student's go up.

    Of all φ(l_1) ≤ φ(l_2) ≤ … the one of highest Σ_l measure()[l, φ(l)]; among equals the one that
    is nearest to `proportional`.

    Raises:
        ValueError: what was measured is not finite, or of other depths.
    """
    measured = measure()
    if measured.shape != (num_student, num_teacher) or not measured.isfinite().all():
        raise ValueError(
            f"the similarity of layers is finite and [{num_student}, {num_teacher}], got "
            f"{tuple(measured.shape)} with {int((~measured.isfinite()).sum())} broken entries."
        )
    rows = measured[[layer - 1 for layer in layers]].tolist()
    near = [pair.teacher - 1 for pair in proportional(layers, num_student, num_teacher, measure)]
    columns = monotone_columns(rows, near)
    return tuple(LayerPair(layer, c + 1) for layer, c in zip(layers, columns, strict=True))


PAIRINGS: dict[str, Pairing] = {
    "proportional": Pairing(proportional),
    "from_end": Pairing(from_end),
    "similarity": Pairing(similarity, measures=True),
}


def unmeasured() -> Tensor:
    """Stands where nothing can measure, which a ValueError says."""
    raise ValueError("this layer_pairing asks how alike layers are, and nothing measures that.")


def pair_layers(
    layers: str | Sequence[int],
    num_student_layers: int,
    num_teacher_layers: int,
    pairing: str = "proportional",
    measure: Measure = unmeasured,
) -> tuple[LayerPair, ...]:
    """Pair student layers with teacher layers.

    Args:
        layers: a specification of `select_layers`, of the student's layers.
        num_student_layers: L_S.
        num_teacher_layers: L_T.
        pairing: a name in `PAIRINGS`, or pairs such as `"1:1,2:3"`, student layer first.
        measure: for a pairing that asks for it.

    Returns:
        The pairs, student layers ascending.

    Raises:
        ValueError: a layer does not exist or repeats, the pairing is unknown or knows no partner,
            or pairs and `layers` name different student layers.
    """
    if num_teacher_layers < 1:
        raise ValueError(f"a model has at least one layer, got {num_teacher_layers=}.")
    selected = select_layers(layers, num_student_layers)
    check_pairing(pairing, layers)
    if pairing in PAIRINGS:
        return PAIRINGS[pairing].pair(selected, num_student_layers, num_teacher_layers, measure)
    pairs = _parse_pairs(pairing)
    depths = LayerPair(num_student_layers, num_teacher_layers)
    for pair in pairs:
        for role, layer, depth in zip(LayerPair._fields, pair, depths, strict=True):
            if not 1 <= layer <= depth:
                raise ValueError(
                    f"layer_pairing={pairing!r} names {role} layer {layer}, and the student has "
                    f"{depths.student} layers and the teacher {depths.teacher}, each from 1."
                )
    if layers != "all":
        _check_same_layers(pairs, pairing, selected, layers)
    return pairs


def student_layers(
    layers: str | Sequence[int], pairing: str, num_student_layers: int
) -> tuple[int, ...]:
    """The student's layers that will be paired, whatever the teacher is.

    Raises:
        ValueError: a layer that `layers` selects does not exist, or the pairing is unknown.
    """
    check_pairing(pairing, layers)
    if pairing in PAIRINGS:
        return select_layers(layers, num_student_layers)
    return tuple(pair.student for pair in _parse_pairs(pairing))


def check_pairing(pairing: object, layers: str | Sequence[int] = "all") -> None:
    """Refuse, with a ValueError, a pairing that is illegal for models of any depth."""
    if isinstance(pairing, str) and pairing in PAIRINGS:
        return
    pairs = _parse_pairs(pairing)
    # What a name selects depends on the depth.
    if not isinstance(layers, str):
        _check_same_layers(pairs, pairing, layers, layers)


def measures(pairing: str) -> bool:
    """Whether a pairing asks for the similarity of layers."""
    return pairing in PAIRINGS and PAIRINGS[pairing].measures


def pairs_text(pairs: Sequence[LayerPair]) -> str:
    """Pairs as `pair_layers` reads them."""
    return ",".join(f"{pair.student}:{pair.teacher}" for pair in pairs)


def _parse_pairs(text: object) -> tuple[LayerPair, ...]:
    """`"1:1,2:3"` as pairs, student layers ascending."""
    parts = text.split(",") if isinstance(text, str) else [""]
    found = [re.fullmatch(r"\s*([0-9]{1,6})\s*:\s*([0-9]{1,6})\s*", part) for part in parts]
    pairs = sorted(LayerPair(int(match[1]), int(match[2])) for match in found if match)
    if len(pairs) < len(parts):
        close = difflib.get_close_matches(str(text), PAIRINGS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(
            f"layer_pairing must be one of {', '.join(PAIRINGS)}{hint}, or pairs of a student and "
            f"a teacher layer in quotes, such as '1:1,2:3', got {text!r}."
        )
    students = [pair.student for pair in pairs]
    if repeated := sorted({layer for layer in students if students.count(layer) > 1}):
        raise ValueError(
            f"layer_pairing={text!r} names student layer {repeated[0]} more than once: a student "
            "layer meets one teacher layer."
        )
    return tuple(pairs)


def _check_same_layers(
    pairs: Sequence[LayerPair], pairing: object, selected: Sequence[int], layers: object
) -> None:
    named = [pair.student for pair in pairs]
    if named != sorted(selected):
        raise ValueError(
            f"layer_pairing={pairing!r} pairs the student's layers {named}, and layers={layers!r} "
            "selects others: leave layers at 'all', or let it name the same."
        )


def _named(spec: str, num_layers: int) -> tuple[int, ...]:
    match spec.split(":"):
        case ["all"]:
            return tuple(range(1, num_layers + 1))
        case ["last"]:
            return (num_layers,)
        case ["last", count] if _counts(count):
            if int(count) > num_layers:
                raise ValueError(f"layers={spec!r} asks a model with {num_layers} layers for more.")
            return tuple(range(num_layers - int(count) + 1, num_layers + 1))
        case ["even"]:
            return tuple(range(2, num_layers + 1, 2))
        case ["odd"]:
            return tuple(range(1, num_layers + 1, 2))
        case ["every", step] if _counts(step):
            if int(step) > num_layers:
                raise ValueError(
                    f"layers={spec!r} goes beyond the {num_layers} layers of a model: lower the "
                    'number, or write "last" for the last one alone.'
                )
            return tuple(sorted({*range(int(step), num_layers + 1, int(step)), num_layers}))
    raise ValueError(f"layers must be {LAYER_SPECS}, got {spec!r}.")


def _numbered(spec: Sequence[int], num_layers: int) -> tuple[int, ...]:
    numbers = tuple(spec)
    for layer in numbers:
        if isinstance(layer, bool) or not isinstance(layer, int):
            raise ValueError(f"layer numbers are integers, got {layer!r} in {numbers}.")
        if not 1 <= layer <= num_layers:
            raise ValueError(f"layer {layer} is outside 1..{num_layers}, the layers of this model.")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"layers repeat in {numbers}: name each layer once.")
    return tuple(sorted(numbers))


def _counts(text: str) -> bool:
    """Whether it is a whole number of at least 1, in fewer digits than would be a mistake."""
    return text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0


def _round_half_even(numerator: int, denominator: int) -> int:
    """Round numerator / denominator to the nearest integer in exact arithmetic, halves to even."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    return quotient + (twice > denominator or (twice == denominator and quotient % 2 == 1))
