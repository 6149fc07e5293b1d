"""What a bridge would carry: fitted and judged on rows of the one reading.

Letters: N rows, D width.
"""

from collections.abc import Sequence
from typing import Any

import torch

from oprd.analysis.inspection.rows import chosen_rows, positions_by_prompt, taken
from oprd.calibration.bridge.fit import new_fitter, solve_bridges
from oprd.calibration.bridge.heads import Common, heads_of_last
from oprd.calibration.bridge.report import bridge_report
from oprd.calibration.bridge.scores import score_held_out
from oprd.calibration.bridge.settings import FitSettings
from oprd.calibration.reading import PairedRows
from oprd.calibration.selection import Selection, hold_out
from oprd.core.layers import LayerPair

# A rank is advised by the mean over layers, of which these few stand for all.
PAIRS = 5
# The paper's.
RANK = 8


class Carry:
    """Streamed statistics of some pairs, and their held-out rows.

    Args:
        student: a causal language model.
        teacher: likewise.
        pairs: the layers that meet, of which `PAIRS` are looked at.
        supervised: the positions that count.
        common: the tokens that two vocabularies have; None of one.
    """

    def __init__(
        self,
        student: Any,
        teacher: Any,
        pairs: Sequence[LayerPair],
        supervised: Sequence[Selection],
        common: Common = None,
    ) -> None:
        self._pairs = spread(pairs, PAIRS)
        fit, held_out = hold_out(supervised)
        self._counts = {"rollouts": len(supervised), "fit": len(fit), "held_out": len(held_out)}
        self._parts = positions_by_prompt(fit), positions_by_prompt(held_out)
        self._fitters = [new_fitter(student, teacher, self._pairs) for _ in self._parts]
        self._heads = heads_of_last(student, teacher, self._pairs, common)
        self._held_out: list[PairedRows] = []

    def add(self, batch: Sequence[Selection], rows: PairedRows) -> None:
        """See `Observer`."""
        parts = [self._rows_of(batch, rows, n) for n in range(2)]
        for fitter, part in zip(self._fitters, parts, strict=True):
            fitter.update(part.student, part.teacher)
        self._held_out.append(parts[1])

    def report(self) -> dict[str, Any]:
        """The report of a bridge fit, see `bridge_report`.

        Raises:
            ValueError: a layer is the same in all rows.
        """
        rank = min(RANK, self._fitters[0].highest_rank())
        bridge, widest = solve_bridges(self._fitters, FitSettings(rank))
        batches = [[number] for number, rows in enumerate(self._held_out) if _count(rows)]
        scores = score_held_out(self, bridge, widest, batches, lambda _: None, self._heads)
        return bridge_report(bridge, scores, self._counts)

    @property
    def device(self) -> torch.device:
        """Where held-out rows are."""
        return next(iter(self._held_out[0].student.values())).device

    def __call__(self, batch: Sequence[int]) -> PairedRows:
        """The held-out rows of a batch that was read before, by its number."""
        (number,) = batch
        return self._held_out[number]

    def _rows_of(self, batch: Sequence[Selection], rows: PairedRows, part: int) -> PairedRows:
        index = chosen_rows(batch, self._parts[part])
        return PairedRows(
            {pair.student: taken(rows.student[pair.student], index) for pair in self._pairs},
            {pair.teacher: taken(rows.teacher[pair.teacher], index) for pair in self._pairs},
            None,
        )


def spread(pairs: Sequence[LayerPair], most: int) -> list[LayerPair]:
    """At most so many of the pairs, evenly spaced, the first and the last among them."""
    if len(pairs) <= most:
        return list(pairs)
    return [pairs[round(n * (len(pairs) - 1) / (most - 1))] for n in range(most)]


def _count(rows: PairedRows) -> int:
    return len(next(iter(rows.student.values())))
