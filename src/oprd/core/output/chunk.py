"""Both models' next-token distributions at some rows of a pair: no [B, K, V] tensor exists.

Letters: n rows of a chunk, V vocabulary, D width, M ids looked at in each row. Of two vocabularies
what is compared are the classes that their tokens form (`oprd.core.output.classes`), and V is their
number.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from oprd.core.output.classes import merge, spread
from oprd.core.output.head import chunk_length, chunks
from oprd.core.output.joined import apart, join, join_at
from oprd.core.output.pair import Pair


class Chunk:
    """Both models' next-token distributions at some rows of a pair, formed when asked for.

    What is [n, V] stands in one of three buffers, which all chunks of a pass share: a CPU spends
    longer on fresh pages than on the arithmetic in them. It is the caller's to overwrite, and lasts
    until its side (student, teacher or scratch) is asked for again.

    Args:
        pair: whose rows they are.
        part: of them.
        buffers: of the pass.
        most: rows of its longest chunk.
    """

    def __init__(self, pair: Pair, part: slice, buffers: dict[str, Tensor], most: int) -> None:
        self.part = part
        self._pair = pair
        self._buffers, self._most = buffers, most
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
        if name not in self._buffers:
            # One that grew with a longer chunk would stand beside the one before it.
            shape = self._most, width
            found = self._student_rows.new_empty(shape, dtype=self._pair.dtype)
            self._buffers[name] = found
        return self._buffers[name][: len(self._student_rows)]

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
    parts = list(chunks(len(pair.student_rows), longest))
    most = max((part.stop - part.start for part in parts), default=0)
    for part in parts:
        yield Chunk(pair, part, buffers, most)


def held(
    rows: int,
    sizes: tuple[int, int],
    classes: int | None = None,
    *,
    capped: bool = False,
    spare: int = 0,
) -> int:
    """The most elements that a pass over a pair holds at once, beside its rows and gradients.

    Args:
        rows: N.
        sizes: of the student's vocabulary and of the teacher's.
        classes: that these form; None for one vocabulary.
        capped: whether the student's head has a softcap, so that its logits are kept as they were.
        spare: of the loss, see `oprd.core.output.loss.OutputLoss`.
    """
    ours, theirs = sizes
    n, kept = min(rows, chunk_length(max(sizes))), int(capped)
    # While the loss is computed, while classes come apart, and as the cap's derivative goes in.
    if classes is None:
        by_row = (3 + kept + spare) * ours, 3 * (1 + kept) * ours
    else:
        sums, scratch, logs = 2 * (classes + 1), classes, 2 * classes
        both = (1 + kept) * ours + theirs + sums + scratch
        by_row = (
            both + logs + spare * classes,
            both + logs + ours,
            both + 2 * kept * ours,
        )
    return n * max(by_row)


def _tokens(group: Sequence[int], rows: Tensor) -> Tensor:
    """[n, E]: the group in every row."""
    return torch.tensor(group, device=rows.device).expand(len(rows), -1)
