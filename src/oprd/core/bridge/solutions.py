"""All pairs solved from streamed statistics: what a fitter keeps to give any rank at once.

Letters: S student width, H teacher width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from oprd.core.bridge.bases import Basis
from oprd.core.bridge.heads import HeadStatistics, solve_heads
from oprd.core.bridge.solve import (
    Directions,
    PairMoments,
    PairSolution,
    is_constant,
    predicted_scatter,
    principal_directions,
    regress,
    solve_pair,
)
from oprd.core.bridge.statistics import PairStatistics


def check_varied(sums: PairStatistics) -> None:
    """Refuse rows that are all the same vector.

    Raises:
        ValueError: a layer of the student or the teacher is constant.
    """
    student = [pair.student for pair in sums.pairs]
    for source, layers, means, scatters in (
        ("student", student, sums.student_mean, sums.student_scatter),
        ("teacher", sums.teacher_layers, sums.teacher_mean, sums.teacher_scatter),
    ):
        for layer, mean, scatter in zip(layers, means, scatters, strict=True):
            if is_constant(sums.count, mean, scatter):
                raise ValueError(
                    f"{source} layer {layer} is the same vector in all {sums.count} rows: "
                    "there is nothing to fit. Leave the layer out."
                )


def teacher_directions(sums: PairStatistics, basis: Basis) -> list[Directions]:
    """Per distinct teacher layer; none for `"rrr"`, whose directions depend on the student.

    Raises:
        ValueError: `"fisher"` has no gradients.
    """
    if basis == "rrr":
        return []
    if basis == "pca":
        return [principal_directions(scatter) for scatter in sums.teacher_scatter]
    if sums.gradient_moment is None or sums.gradient_count == 0:
        raise ValueError('basis="fisher" needs update(..., teacher_gradients=...).')
    moment = sums.gradient_moment / sums.gradient_count
    return [principal_directions(layer, scale=True) for layer in moment]


def solve_pairs(
    sums: PairStatistics,
    places: Sequence[int],
    directions: Sequence[Directions],
    center: bool,
    ridges: Sequence[float],
) -> list[PairSolution]:
    """The solutions of some pairs by regression.

    Args:
        sums: the statistics.
        places: of the pairs.
        directions: of `teacher_directions`.
        center: remove the student's mean.
        ridges: one for each pair of the statistics.
    """
    return [_solve_pair(sums, p, directions, center, ridges[p]) for p in places]


class HeadsFit(NamedTuple):
    """The pair of LM heads solved, its moments about zero.

    Attributes:
        solution: of every rank up to that of the student's head.
        student_mean: [S] µ_S.
        unreachable: the mean of c over the rows; None where there are none.
        metric: of both heads.
    """

    solution: PairSolution
    student_mean: Tensor
    unreachable: float | None
    metric: str


def solve_last_pair(sums: PairStatistics, heads: HeadStatistics, p: int) -> HeadsFit:
    """The pair of LM heads, with what it achieves on the rows of the fit, if there are any.

    Args:
        sums: the statistics.
        heads: of both models.
        p: the pair's place.
    """
    if sums.count == 0:
        found = solve_heads(heads.moments())
        unknown = found.student_mean.new_zeros(len(found.student_projection))
        solution = PairSolution(
            found.student_projection,
            found.teacher_projection,
            len(unknown),
            *(unknown,) * 4,
        )
        return HeadsFit(solution, found.student_mean, None, heads.metric)
    u, count = sums.teacher_index[p], sums.count
    means = sums.student_mean[p], sums.teacher_mean[u]
    student = sums.student_scatter[p] / count + torch.outer(means[0], means[0])
    teacher = sums.teacher_scatter[u] / count + torch.outer(means[1], means[1])
    found = solve_heads(heads.moments(unreachable=True), student)
    p_s, p_t = found.student_projection, found.teacher_projection
    offset = p_s @ found.student_mean
    mean_s, mean_t = p_s @ means[0] - offset, p_t @ means[1]
    target = ((p_t @ teacher) * p_t).sum(dim=1)
    predicted = ((p_s @ sums.student_scatter[p]) * p_s).sum(dim=1) / count + mean_s.square()
    covariance = ((p_s @ sums.cross[p]) * p_t).sum(dim=1) / count + mean_s * mean_t
    r_squared = torch.where(target > 0, (2 * covariance - predicted) / target, 0).clamp(0, 1)
    solution = PairSolution(p_s, p_t, len(p_s), target, r_squared, covariance, predicted)
    assert found.unreachable is not None
    c = found.unreachable
    left = (c[:-1, :-1] * teacher).sum() - 2 * c[-1, :-1] @ means[1] + c[-1, -1]
    return HeadsFit(solution, found.student_mean, float(left), heads.metric)


def _solve_pair(
    sums: PairStatistics, p: int, directions: Sequence[Directions], center: bool, ridge: float
) -> PairSolution:
    u = sums.teacher_index[p]
    moments = PairMoments(
        sums.count,
        sums.student_mean[p],
        sums.student_scatter[p],
        sums.teacher_scatter[u],
        sums.cross[p],
    )
    weights = regress(moments, center=center, ridge=ridge)
    chosen = (
        directions[u] if directions else principal_directions(predicted_scatter(moments, weights))
    )
    return solve_pair(moments, chosen, weights, center=center)
