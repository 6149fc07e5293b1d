"""Student and teacher at the same supervised positions, and their next-token distributions there.

Rows are taken some at a time: no [B, K, V] tensor exists.

Letters: B sequences, K response tokens, N supervised rows, n rows of a chunk, V vocabulary,
D width, M ids looked at in each row. Of two vocabularies what is compared are the classes that
their tokens form (`oprd.core.output.classes`), and V is their number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from oprd.core.output.classes import Classes
from oprd.core.output.head import LMHead, as_head
from oprd.core.output.joined import as_first, check_group
from oprd.core.positions import gather_rows, row_index


@dataclass(frozen=True, eq=False)
class Pair:
    """Student and teacher at the same N supervised positions.

    Attributes:
        student_rows: [N, D_student], with the student's graph.
        teacher_rows: [N, D_teacher], without.
        student_head: over the vocabulary of `teacher_head`, which has no graph, or over its own
            where there are classes.
        teacher_head: see `student_head`.
        mask: [B, K] bool, the positions; rows are in its order.
        index: [N], where they are in the flattened mask.
        temperature: divides both models' logits.
        ids: [N], the rollout's tokens at the rows, where they were given.
        joined: tokens that are one action, of which the first stands for all; none, or several.
        classes: in which two vocabularies meet; None for one vocabulary.
    """

    student_rows: Tensor
    teacher_rows: Tensor
    student_head: LMHead
    teacher_head: LMHead
    mask: Tensor
    index: Tensor
    temperature: float
    ids: Tensor | None = None
    joined: tuple[int, ...] = ()
    classes: Classes | None = None

    @property
    def size(self) -> int:
        """V: how many tokens, or classes of them, the distributions are over."""
        return self.student_head.vocab_size if self.classes is None else self.classes.count

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the loss: float32, or float64 for float64 student states."""
        return torch.promote_types(self.student_rows.dtype, torch.float32)

    def detach(self) -> "Pair":
        """The same pair without a graph."""
        return replace(
            self,
            student_rows=self.student_rows.detach(),
            student_head=self.student_head.detach(),
        )


def select_pair(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    student_head: LMHead | Tensor,
    teacher_head: LMHead | Tensor,
    mask: Tensor,
    temperature: float = 1.0,
    token_ids: Tensor | None = None,
    joined: Sequence[int] = (),
    classes: Classes | None = None,
) -> Pair:
    """Check what output-space losses and diagnostics share, and keep the supervised rows.

    States are [B, K, width], or already gathered: the mask's rows [N, width], in its order. See
    `oprd.core.output.chunked.output_loss` for the rest, and `Pair` for the tokens that are joined
    and for the classes of two vocabularies.

    Raises:
        ValueError: shapes do not fit, vocabularies differ and have no classes, a token id is out of
            bounds, or the temperature is not positive.
    """
    student_head, teacher_head = as_head(student_head), as_head(teacher_head)
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"temperature must be positive and finite, got {temperature}.")
    if mask.ndim != 2:
        raise ValueError(f"mask must be [B, K], got shape {tuple(mask.shape)}.")
    index = row_index(mask)
    for name, hidden, head in (
        ("student", student_hidden, student_head),
        ("teacher", teacher_hidden, teacher_head),
    ):
        if hidden.shape not in ((*mask.shape, head.width), (len(index), head.width)):
            raise ValueError(
                f"{name}_hidden must be [B, K, width] = {[*mask.shape, head.width]}, from the "
                f"mask's shape and {name}_head's width, or the mask's rows alone, "
                f"{[len(index), head.width]}, got {list(hidden.shape)}."
            )
    if classes is not None:
        _check_classes(classes, student_head, teacher_head, joined)
    elif student_head.vocab_size != teacher_head.vocab_size:
        raise ValueError(
            f"student_head has {student_head.vocab_size} tokens and teacher_head "
            f"{teacher_head.vocab_size}: an output-space loss needs one vocabulary. Cut padding "
            "rows off the longer head, or use a representation-only objective, which needs no "
            "equal vocabularies."
        )
    check_group(joined, student_head.vocab_size)
    return Pair(
        _autocast(_rows(student_hidden, index)),
        _autocast(_rows(teacher_hidden.detach(), index)),
        student_head,
        teacher_head.detach(),
        mask.bool(),
        index,
        temperature,
        as_first(_supervised_ids(token_ids, mask, index, student_head), joined)
        if token_ids is not None
        else None,
        tuple(joined),
        classes,
    )


def _check_classes(
    classes: Classes, student: LMHead, teacher: LMHead, joined: Sequence[int]
) -> None:
    """Refuse, with a ValueError, classes of other vocabularies, or beside joined tokens."""
    sizes = len(classes.student), len(classes.teacher)
    if sizes != (student.vocab_size, teacher.vocab_size):
        raise ValueError(
            f"classes are of {sizes[0]} and {sizes[1]} tokens, and the heads have "
            f"{student.vocab_size} and {teacher.vocab_size}."
        )
    if joined:
        raise ValueError("tokens that are one action belong in one class of two vocabularies.")


def _supervised_ids(token_ids: Tensor, mask: Tensor, index: Tensor, head: LMHead) -> Tensor:
    """[N], refused with a ValueError where they are not integers in 0..V−1."""
    if token_ids.shape != mask.shape or token_ids.is_floating_point():
        raise ValueError(
            f"token_ids must be integers of the mask's shape {list(mask.shape)}, got "
            f"{token_ids.dtype} {list(token_ids.shape)}."
        )
    ids = token_ids.flatten()[index].long()
    last = head.vocab_size - 1
    if len(ids) and not 0 <= ids.min() <= ids.max() <= last:
        raise ValueError(
            f"supervised token_ids must be in 0..{last}, got {ids.min()}..{ids.max()}: mask out "
            "padding and ignored labels."
        )
    return ids


def _rows(hidden: Tensor, index: Tensor) -> Tensor:
    return hidden if hidden.ndim == 2 else gather_rows(hidden, index)


def _autocast(hidden: Tensor) -> Tensor:
    """States in the dtype in which a model under autocast would give them to its head."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype == torch.float32:
        return hidden.to(torch.get_autocast_dtype(device))
    return hidden
