"""What each of several teachers teaches of a micro-batch.

Letters: B sequences, b of them, A teachers, N supervised rows, M response rows, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from oprd.models.batch import MicroBatch


@dataclass(frozen=True, eq=False)
class Part:
    """What one teacher teaches of a micro-batch.

    Attributes:
        batch: its b sequences, as a micro-batch of their own; counts are those of the whole one.
        rows: [N] bool, which of the micro-batch's supervised rows are theirs; None for all.
        written: [M] bool, likewise of the rows that predict any response token.
        shares: [b], what each sequence's losses are multiplied by; None for 1.
    """

    batch: MicroBatch
    rows: Tensor | None = None
    written: Tensor | None = None
    shares: Tensor | None = None

    @classmethod
    def of(cls, batch: MicroBatch, number: int, *, gathers: bool = False) -> "Part":
        """The part of a teacher, which may have no sequence.

        Args:
            batch: with the shares of several teachers.
            number: of the teacher, from 0.
            gathers: whether its weights are in pieces that all processes gather while it reads, so
                that it reads here if it does in any of them.
        """
        assert batch.shares is not None and batch.reads is not None
        shares = batch.shares[:, number]
        own = shares > 0
        if bool(own.all()):
            return cls(batch, shares=None if bool((shares == 1).all()) else shares)
        view = batch.view
        rows, written = (own[mask.nonzero()[:, 0]] for mask in (view.rows, view.response))
        if gathers and bool(batch.reads[0, number]) and not bool(own.any()):
            return cls(batch.unsupervised(), rows, written, shares[:1])
        return cls(batch.take(own.nonzero()[:, 0]), rows, written, shares[own])

    def of_rows(self, rows: Tensor) -> Tensor:
        """Of the micro-batch's supervised rows [N, D] those that are its own."""
        return rows if self.rows is None else rows[self.rows.to(rows.device)]

    def of_written(self, rows: Tensor) -> Tensor:
        """Likewise of the rows [M, D] that predict any response token."""
        return rows if self.written is None else rows[self.written.to(rows.device)]

    def add_rows(self, total: Tensor | None, values: Tensor | None) -> Tensor | None:
        """Add values of its rows, by their shares, to those of the whole micro-batch [N]."""
        if values is None or (self.rows is None and self.shares is None):
            return total if values is None else values
        if self.shares is not None:
            mask = self.batch.view.rows
            values = values * self.shares[mask.nonzero()[:, 0]].to(values)
        if self.rows is None:
            return values if total is None else total + values
        rows = self.rows.to(values.device)
        total = torch.zeros(len(rows)).to(values) if total is None else total
        return total.index_add(0, rows.nonzero()[:, 0], values)
