"""All pairs solved from streamed statistics: what a fitter keeps to give any rank at once.

Letters: S student width, H teacher width.
"""

from collections.abc import Sequence

from oprd.core.bridge.solve import (
    Basis,
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
    sums: PairStatistics, directions: Sequence[Directions], center: bool, ridges: Sequence[float]
) -> list[PairSolution]:
    """One solution a pair, in the order of the pairs.

    Args:
        sums: the statistics.
        directions: of `teacher_directions`.
        center: remove the student's mean.
        ridges: one a pair.
    """
    return [_solve_pair(sums, p, directions, center, ridge) for p, ridge in enumerate(ridges)]


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
