"""What a loss on states is: its parameters, checked, and a formula that gives a value a row.

Letters: B sequences, K response tokens, N selected rows, D width, S student and H teacher width.
"""

from abc import ABC, abstractmethod
from dataclasses import fields
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

# The parameter of a loss that can compare rows at unit length.
UNIT_LENGTH = "unit_length"
# A state of this norm or less has no direction: normalised it is zero, and so are its cosines.
EPSILON = 1e-12


class RowDistances(NamedTuple):
    """Student and teacher rows compared, each [N], float32 (float64 for float64 rows).

    Attributes:
        distance: what the loss sums, with a graph to the student.
        cosine: cosine of the two rows, without a graph, 0 where one has no direction; None where
            their widths differ.
        student_norm: L2 norm of the student's row, without a graph.
        teacher_norm: L2 norm of the teacher's row, without a graph.
    """

    distance: Tensor
    cosine: Tensor | None
    student_norm: Tensor
    teacher_norm: Tensor


class Sequences:
    """Which of the selected rows belong to one sequence.

    Args:
        mask: [B, K], true at the N selected positions; rows are in its order.
    """

    def __init__(self, mask: Tensor) -> None:
        self._mask = mask.bool()

    @cached_property
    def lengths(self) -> list[int]:
        """Rows of each of the B sequences; asked for first, it waits for the device."""
        return self._mask.sum(dim=1).tolist()

    def split(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Rows [N, …] sequence by sequence, B views."""
        return rows.split(self.lengths)


class StateLoss(ABC):
    """A loss on the states of one layer, a frozen dataclass of its parameters.

    Its construction refuses parameters that are out of bounds. A row's value may depend on all rows
    of its own sequence and on no others, so that the split of a batch does not matter; the caller
    weighs and sums the values, see `oprd.core.states.comparison`.

    Attributes:
        equal_widths: whether both models' rows must have one width.
        least_rows: rows of a sequence below which it is zero whatever they are.
    """

    equal_widths: ClassVar[bool] = True
    least_rows: ClassVar[int] = 1

    @abstractmethod
    def __call__(self, student: Tensor, teacher: Tensor, sequences: Sequences) -> RowDistances:
        """Compare rows.

        Args:
            student: [N, S], with a graph.
            teacher: [N, H], perhaps of another dtype or on another device; no gradient flows into
                it.
            sequences: which rows belong together.
        """


def has_scale(loss: type[StateLoss]) -> bool:
    """Whether a loss grows with the size of states unless it compares them at unit length."""
    return any(field.name == UNIT_LENGTH for field in fields(loss))  # pyright: ignore[reportArgumentType] # dataclasses all


@torch.no_grad()
def with_statistics(distance: Tensor, student: Tensor, teacher: Tensor) -> RowDistances:
    """Distances [N] with the cosines and norms of their rows, for losses that do not work them out.

    Args:
        distance: [N], with a graph to the student.
        student: [N, S].
        teacher: [N, H].
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    s, t = student.detach().to(dtype), teacher.to(student.device, dtype)
    norms = torch.linalg.vector_norm(s, dim=-1), torch.linalg.vector_norm(t, dim=-1)
    if s.shape != t.shape:
        return RowDistances(distance, None, *norms)
    cosine = (s * t).sum(dim=-1) / (norms[0] * norms[1])
    return RowDistances(distance, torch.where(no_direction(*norms), 0, cosine), *norms)


def no_direction(student_norm: Tensor, teacher_norm: Tensor) -> Tensor:
    """[N] bool, whether one of two rows of these norms [N] has no direction."""
    return (student_norm <= EPSILON) | (teacher_norm <= EPSILON)
