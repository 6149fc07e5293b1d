"""Layer numbers: 1..L are the blocks, and L is the state after the final norm.

The numbers are the indices of Transformers' `hidden_states`, where 0 is the embedding, which is
never supervised.
"""

from collections.abc import Sequence
from typing import NamedTuple

LAYER_SPECS = '"all", "last", "even", "odd", "every:N" or a sequence of layer numbers'


class LayerPair(NamedTuple):
    """A student layer and the teacher layer it is pulled to, each numbered in its own model."""

    student: int
    teacher: int


def select_layers(spec: str | Sequence[int], num_layers: int) -> tuple[int, ...]:
    """Resolve a layer specification for a model of `num_layers` blocks.

    Args:
        spec: `"all"`; `"last"`; `"even"` (2, 4, …); `"odd"` (1, 3, …); `"every:N"` (N, 2N, … and
            always the last); or layer numbers from 1 to `num_layers`.
        num_layers: the number of blocks L.

    Returns:
        The layer numbers in ascending order.

    Raises:
        ValueError: the specification is unknown, selects nothing, or holds a number that is
            repeated or outside 1..`num_layers`.
    """
    if num_layers < 1:
        raise ValueError(f"a model has at least one layer, got num_layers={num_layers}.")
    layers = _named(spec, num_layers) if isinstance(spec, str) else _numbered(spec, num_layers)
    if not layers:
        raise ValueError(f"layers={spec!r} selects no layer of a model with {num_layers}.")
    return layers


def pair_layers(
    student_layers: Sequence[int], num_student_layers: int, num_teacher_layers: int
) -> tuple[LayerPair, ...]:
    """Pair student layers with teacher layers of the same relative depth (Eq. 11).

    φ(l) = round((l − 1) / (L_S − 1) · (L_T − 1)) + 1, halves rounding to even; a student of one
    layer meets the teacher's last.

    Raises:
        ValueError: a student layer is outside 1..`num_student_layers`, repeated, or missing.
    """
    if num_teacher_layers < 1:
        raise ValueError(f"a model has at least one layer, got {num_teacher_layers=}.")
    layers = select_layers(tuple(student_layers), num_student_layers)
    if num_student_layers == 1:
        return (LayerPair(1, num_teacher_layers),)
    steps, span = num_student_layers - 1, num_teacher_layers - 1
    return tuple(
        LayerPair(layer, _round_half_even((layer - 1) * span, steps) + 1) for layer in layers
    )


def _named(spec: str, num_layers: int) -> tuple[int, ...]:
    match spec.split(":"):
        case ["all"]:
            return tuple(range(1, num_layers + 1))
        case ["last"]:
            return (num_layers,)
        case ["even"]:
            return tuple(range(2, num_layers + 1, 2))
        case ["odd"]:
            return tuple(range(1, num_layers + 1, 2))
        case ["every", step] if step.isascii() and step.isdigit() and int(step) > 0:
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


def _round_half_even(numerator: int, denominator: int) -> int:
    """Round numerator / denominator to the nearest integer in exact arithmetic, halves to even."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    return quotient + (twice > denominator or (twice == denominator and quotient % 2 == 1))
