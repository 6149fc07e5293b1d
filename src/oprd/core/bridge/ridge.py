"""How strong a ridge should be, judged by rows that the fit has not seen.

The default ridge only keeps a solve well posed. Where the student predicts little of its teacher,
or rows are few or resemble each other (as neighbours in a rollout do), least squares fits noise,
and a stronger ridge carries over better. The statistics of held-out rows are all that is needed,
whatever the number of candidates.

Letters: S student width, H teacher width, R rank.
"""

from collections.abc import Sequence

import torch

from oprd.core.bridge.bridge import Bridge
from oprd.core.bridge.fit import BridgeFitter

CANDIDATES = (1e-6, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def choose_ridge(
    fitter: BridgeFitter,
    validation: BridgeFitter,
    rank: int,
    *,
    basis: str = "pca",
    center: bool = True,
    candidates: Sequence[float] = CANDIDATES,
) -> dict[int, float]:
    """The ridge of each layer with the highest R² on validation rows.

    Args:
        fitter: what is solved.
        validation: a fitter that was fed with other rows of the same models.
        rank: R of the bridge.
        basis: of the bridge.
        center: of the bridge.
        candidates: ridges to choose from.

    Returns:
        A ridge by student layer, for `BridgeFitter.solve`.

    Raises:
        ValueError: the two fitters do not match, there are no validation rows or no candidates, or
            the bridge cannot be solved.
    """
    if not candidates:
        raise ValueError("no candidate to choose a ridge from.")
    scores = {
        ridge: validation_r_squared(
            fitter.solve(rank, basis=basis, center=center, ridge=ridge), validation
        )
        for ridge in candidates
    }
    return {
        pair.student: max(candidates, key=lambda ridge: scores[ridge][pair.student])
        for pair in fitter.pairs
    }


@torch.no_grad()
def validation_r_squared(bridge: Bridge, validation: BridgeFitter) -> dict[int, float]:
    """R² of a bridge on rows of which only the statistics are known.

    1 − Σ‖t − s‖² / Σ‖t‖², as `PairScore.r_squared`; with e = t − s, Σ‖e‖² is the scatter of e plus
    n times its squared mean.

    Args:
        bridge: a fitted bridge.
        validation: a fitter that was fed with the rows to judge by.

    Returns:
        R² by student layer.

    Raises:
        ValueError: the fitter is of other pairs or widths, or has no rows.
    """
    widths = validation.student_dim, validation.teacher_dim
    if validation.pairs != bridge.pairs or widths != (bridge.student_dim, bridge.teacher_dim):
        raise ValueError("validation rows must be of the same pairs and widths as the bridge.")
    if validation.rows == 0:
        raise ValueError("there are no validation rows.")
    sums, scores = validation.sums, {}
    for place, pair in enumerate(bridge.pairs):
        u = sums.teacher_index[place]
        p_s = bridge.student_projections[place].to(sums.cross)
        p_t = bridge.teacher_projections[place].to(sums.cross)
        s = p_s @ (sums.student_mean[place] - bridge.student_mean[place].to(sums.cross))
        t = p_t @ (sums.teacher_mean[u] - bridge.teacher_mean[place].to(sums.cross))
        teacher = ((p_t @ sums.teacher_scatter[u]) * p_t).sum()
        student = ((p_s @ sums.student_scatter[place]) * p_s).sum()
        both = ((p_s @ sums.cross[place]) * p_t).sum()
        total = teacher + sums.count * t.square().sum()
        residual = teacher - 2 * both + student + sums.count * (t - s).square().sum()
        scores[pair.student] = float(1 - residual / total) if total > 0 else 0.0
    return scores
