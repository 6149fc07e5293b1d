"""Student and teacher at the same supervised positions, and their next-token distributions there.

Rows are taken some at a time: no [B, K, V] tensor exists.

Letters: B sequences, K response tokens, N supervised rows, n rows of a chunk, V vocabulary,
D width, M ids looked at in each row. Of two vocabularies what is compared are the classes that
their tokens form (`oprd.core.output.classes`), and V is their number.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from oprd.core.output.classes import Classes, merge, spread
from oprd.core.output.head import LMHead, as_head, chunks
from oprd.core.output.joined import apart, as_first, check_group, join, join_at
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


class Chunk:
    """Both models' next-token distributions at some rows of a pair, formed when asked for.

    What is [n, V] stands in one of three buffers, which all chunks of a pass share: a CPU spends
    longer on fresh pages than on the arithmetic in them. It is the caller's to overwrite, and lasts
    until its side (student, teacher or scratch) is asked for again.
    """

    def __init__(self, pair: Pair, part: slice, buffers: dict[str, Tensor]) -> None:
        self.part = part
        self._pair = pair
        self._buffers = buffers
        self._capped: Tensor | None = None
        # The student's exponentials by token and their sums by class, of two vocabularies.
        self._merged: tuple[Tensor, Tensor]
        self._student_rows = pair.student_rows[part]
        self._teacher_rows = pair.teacher_rows[part]

    def student_logits(self) -> Tensor:
        """[n, V]."""
        pair = self._pair
        logits = pair.student_head.logits(
            self._student_rows,
            pair.temperature,
            out=self._buffer("student", pair.student_head.vocab_size),
        )
        if pair.student_head.softcap is not None:
            self._capped = logits.clone()
        if pair.classes is not None:
            sums = self._buffer("sums", pair.size + 1)
            self._merged = logits, sums
            return merge(logits, pair.classes.student, sums)
        return join(logits, pair.joined)

    def teacher_logits(self) -> Tensor:
        """[n, V]."""
        pair = self._pair
        logits = pair.teacher_head.logits(
            self._teacher_rows,
            pair.temperature,
            out=self._buffer("teacher", pair.teacher_head.vocab_size),
        )
        if pair.classes is not None:
            sums = self._buffer("teacher_sums", pair.size + 1)
            return merge(logits, pair.classes.teacher, sums)
        return join(logits, pair.joined)

    def student_logits_at(self, ids: Tensor) -> Tensor:
        """[n, M] at ids [n, M]."""
        logits = self._student_at(ids)
        group = self._pair.joined
        return join_at(logits, ids, self._group(), group) if group else logits

    def teacher_logits_at(self, ids: Tensor) -> Tensor:
        """[n, M] at ids [n, M]."""
        pair = self._pair
        rows, group = self._teacher_rows, pair.joined
        logits = pair.teacher_head.logits_at(rows, ids, pair.temperature).to(pair.dtype)
        if not group:
            return logits
        own = pair.teacher_head.logits_at(rows, _tokens(group, rows), pair.temperature)
        return join_at(logits, ids, own.to(pair.dtype), group)

    def log_p(self) -> Tensor:
        """[n, V], the student's log-probabilities; uses the scratch."""
        return self._log_softmax(self.student_logits())[0]

    def log_q(self) -> Tensor:
        """[n, V], the teacher's log-probabilities; uses the scratch."""
        return self._log_softmax(self.teacher_logits())[0]

    def student(self) -> tuple[Tensor, Tensor]:
        """[n, V] twice, log p and, in the scratch, p: cheaper than a second exponential."""
        log_p, exponentials, total = self._log_softmax(self.student_logits())
        return log_p, exponentials.div_(total)

    def teacher(self) -> tuple[Tensor, Tensor]:
        """[n, V] twice, log q and, in the scratch, q."""
        log_q, exponentials, total = self._log_softmax(self.teacher_logits())
        return log_q, exponentials.div_(total)

    @property
    def token_ids(self) -> Tensor:
        """[n], the rollout's tokens.

        Raises:
            ValueError: the pair was made without them.
        """
        if self._pair.ids is None:
            raise ValueError("this loss looks at the rollout's tokens: pass token_ids.")
        return self._pair.ids[self.part]

    def scratch(self) -> Tensor:
        """[n, V], uninitialised."""
        return self._buffer("scratch", self._pair.size)

    def apart(self, slope: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """∂/∂ the student's logits, all or at ids, where tokens that were joined stand apart."""
        if self._pair.classes is not None:
            assert ids is None, "a loss that looks at single tokens was refused"
            return spread(slope, self._pair.classes.student, *self._merged), None
        group = self._pair.joined
        return apart(slope, ids, self._group(), group) if group else (slope, ids)

    def derivative(self, ids: Tensor | None) -> Tensor | float:
        """∂ student logits / ∂ the head's products, at ids or where logits were last formed."""
        pair = self._pair
        capped = self._capped
        if ids is not None and pair.student_head.softcap is not None:
            capped = self._student_at(ids)
        return pair.student_head.derivative(capped, pair.temperature)

    def _student_at(self, ids: Tensor) -> Tensor:
        pair = self._pair
        return pair.student_head.logits_at(self._student_rows, ids, pair.temperature)

    def _group(self) -> Tensor:
        """[n, E], the student's logits of the tokens that are one action."""
        return self._student_at(_tokens(self._pair.joined, self._student_rows))

    def _buffer(self, name: str, width: int) -> Tensor:
        n = len(self._student_rows)
        held = self._buffers.get(name)
        if held is None or len(held) < n:
            shape = (n, width)
            held = self._student_rows.new_empty(shape, dtype=self._pair.dtype)
            self._buffers[name] = held
        return held[:n]

    def _log_softmax(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Overwrite logits by log-probabilities; beside them eᶻ up to a factor, and its sum."""
        logits.sub_(logits.amax(dim=1, keepdim=True))
        exponentials = torch.exp(logits, out=self.scratch())
        total = exponentials.sum(dim=1, keepdim=True)
        return logits.sub_(total.log()), exponentials, total


def log_softmax_at(logits: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities [n, M] at ids [n, M]; the logits [n, V] become eᶻ up to a factor.

    Returns:
        The log-probabilities, the exponentials [n, V] in place of the logits, their sum [n, 1].
    """
    top = logits.amax(dim=1, keepdim=True)
    at = logits.gather(1, ids).sub_(top)
    exponentials = logits.sub_(top).exp_()
    total = exponentials.sum(dim=1, keepdim=True)
    return at.sub_(total.log()), exponentials, total


def pass_over(pair: Pair) -> Iterator[Chunk]:
    """The chunks of a pair's rows, in order; each is spent when the next is asked for."""
    buffers: dict[str, Tensor] = {}
    longest = max(pair.student_head.vocab_size, pair.teacher_head.vocab_size)
    for part in chunks(len(pair.student_rows), longest):
        yield Chunk(pair, part, buffers)


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


def _tokens(group: Sequence[int], rows: Tensor) -> Tensor:
    """[n, E]: the group in every row."""
    return torch.tensor(group, device=rows.device).expand(len(rows), -1)


def _rows(hidden: Tensor, index: Tensor) -> Tensor:
    return hidden if hidden.ndim == 2 else gather_rows(hidden, index)


def _autocast(hidden: Tensor) -> Tensor:
    """States in the dtype in which a model under autocast would give them to its head."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype == torch.float32:
        return hidden.to(torch.get_autocast_dtype(device))
    return hidden
