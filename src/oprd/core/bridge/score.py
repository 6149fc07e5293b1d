"""How well a bridge carries rows that it was not fitted on.

Letters: N rows, S student width, H teacher width, R rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from oprd.core.bridge.bridge import Bridge
from oprd.core.bridge.check import checked_rows


@dataclass(frozen=True, eq=False)
class PairScore:
    """Sums over rows of one layer pair; scores of two batches add up to that of both.

    A bridge's first r dimensions are the bridge of rank r, so that one score holds those of every
    lower rank.

    Attributes:
        rows: N.
        cosine_sum: [R] float64, at index r − 1 Σ_n of the cosine of projected student row s_n and
            teacher row t_n in their first r dimensions.
        residual: [R] float64, Σ_n (t_n − s_n)².
        total: [R] float64, Σ_n t_n², about the mean of the fit.
    """

    rows: int
    cosine_sum: Tensor
    residual: Tensor
    total: Tensor

    def __add__(self, other: "PairScore") -> "PairScore":
        return PairScore(
            self.rows + other.rows,
            self.cosine_sum + other.cosine_sum,
            self.residual + other.residual,
            self.total + other.total,
        )

    def at(self, rank: int) -> "PairScore":
        """The score of the bridge of a lower rank, from 1."""
        kept = (self.cosine_sum[:rank], self.residual[:rank], self.total[:rank])
        return PairScore(self.rows, *kept)

    @property
    def cosine(self) -> float:
        """The mean of the rows' cosines, 1 minus half of Eq. 14's distance; 0 without rows."""
        return float(self.cosine_sum[-1]) / max(self.rows, 1)

    @property
    def r_squared(self) -> float:
        """1 − Σ‖t − s‖² / Σ‖t‖²: 0 is what always predicting the fit's mean scores."""
        total = float(self.total.sum())
        return 1 - float(self.residual.sum()) / total if total > 0 else 0.0

    @property
    def component_r_squared(self) -> Tensor:
        """[R] float64, the same for each component; 0 for one that does not vary."""
        return torch.where(self.total > 0, 1 - self.residual / self.total, 0)


@torch.no_grad()
def score_rows(
    bridge: Bridge, student: Mapping[int, Tensor], teacher: Mapping[int, Tensor]
) -> dict[int, PairScore]:
    """Score rows against a bridge, per layer pair.

    Args:
        bridge: a fitted bridge.
        student: rows [N, S] by student layer.
        teacher: rows [N, H] by teacher layer; row n of both is one position.

    Returns:
        Scores by student layer.

    Raises:
        ValueError: a layer is missing, or the rows' shapes do not fit.
    """
    rows = checked_rows("student", student, [p.student for p in bridge.pairs], bridge.student_dim)
    count = checked_rows("teacher", teacher, [p.teacher for p in bridge.pairs], bridge.teacher_dim)
    if rows != count:
        raise ValueError(f"{rows} student rows meet {count} teacher rows.")
    scores = {}
    for pair in bridge.pairs:
        s = bridge.project_student(pair.student, student[pair.student]).double()
        t = bridge.project_teacher(pair.student, teacher[pair.teacher]).double().to(s.device)
        scores[pair.student] = PairScore(
            rows,
            _cosines(s, t).sum(dim=0).cpu(),
            (t - s).square().sum(dim=0).cpu(),
            t.square().sum(dim=0).cpu(),
        )
    return scores


def _cosines(s: Tensor, t: Tensor) -> Tensor:
    """[N, R] cosines of rows in their first 1, 2, … R dimensions; 0 where one has no direction."""
    dot = (s * t).cumsum(dim=1)
    norms = (s.square().cumsum(dim=1) * t.square().cumsum(dim=1)).sqrt_()
    return torch.where(norms > 0, dot / norms, 0)
