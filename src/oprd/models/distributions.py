"""The memory that comparing next-token distributions holds at most, counted on shapes.

Letters: N response positions, C classes, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from oprd.core.capture import hidden_size
from oprd.core.output.chunk import held
from oprd.core.output.loss import OutputLoss
from oprd.models.heads import lm_head
from oprd.models.token_classes import KEPT

# Of a loss and its gradients, which are in float32, and of an index.
_ELEMENT, _INDEX = 4, 8


@dataclass(frozen=True)
class Distributions:
    """What a run compares of next-token distributions.

    Attributes:
        losses: on them, of any stage; none where they are read for diagnostics alone.
        classes: in which the student's vocabulary and that of an only teacher meet; None where
            they have one.
    """

    losses: Sequence[OutputLoss] = ()
    classes: int | None = None

    def held(
        self, student: nn.Module, readers: Sequence[nn.Module], rows: int, *, whole: bool = False
    ) -> int:
        """Bytes on one device, beside the models.

        Args:
            student: not wrapped.
            readers: its teachers, the first of which reads tokens of its own where there are
                classes; their weights may be elsewhere.
            rows: N.
            whole: count as if all of the student trained.
        """
        head = lm_head(student)
        theirs = head if self.classes is None else lm_head(readers[0])
        spare = max((loss.spare for loss in self.losses), default=0)
        elements = held(
            rows,
            (head.vocab_size, theirs.vocab_size),
            self.classes,
            capped=head.softcap is not None and bool(self.losses),
            spare=spare,
        )
        if self.losses:
            trained = whole or head.weight.requires_grad
            elements += rows * head.width + (head.weight.numel() if trained else 0)
        tables = 0
        if self.classes is not None:
            tables = KEPT * _INDEX * (head.vocab_size + theirs.vocab_size)
        last = self._last(student, readers, rows)
        return _ELEMENT * elements + last + tables + sum(map(_fetched, readers))

    def _last(self, student: nn.Module, readers: Sequence[nn.Module], rows: int) -> int:
        """Both models' last states [N, D].

        Where there are classes they are sorted by the ways to be ahead, the student's twice: apart
        for each way, and all of them.
        """
        ours, theirs = (1, 1) if self.classes is None else (3, 2)
        widest = max((hidden_size(m) * _element(m) for m in readers), default=0)
        return rows * (ours * hidden_size(student) * _element(student) + theirs * widest)


def _fetched(reader: nn.Module) -> int:
    """The LM head of a reader whose weights are elsewhere, which is brought here."""
    if not next(reader.parameters()).is_meta:
        return 0
    return lm_head(reader).weight.numel() * _element(reader)


def _element(model: nn.Module) -> int:
    return next(model.parameters()).element_size()
