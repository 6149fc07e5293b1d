"""A bridge put together from its pairs' solutions, each cut to its rank.

Letters: P pairs, S student width, H teacher width, R rank of a pair.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from oprd.core.bridge.bases import HEADS
from oprd.core.bridge.bridge import Bridge, PairFit
from oprd.core.bridge.solutions import HeadsFit
from oprd.core.bridge.solve import PairSolution, explained_variance, moment_cosine
from oprd.core.bridge.statistics import PairStatistics


def assemble(
    sums: PairStatistics,
    solutions: Sequence[PairSolution],
    bases: Sequence[str],
    ranks: Sequence[int],
    ridges: Sequence[float],
    *,
    center: bool,
    heads: HeadsFit | None,
    provenance: Mapping[str, Any] | None,
) -> Bridge:
    """The bridge of some solutions.

    Args:
        sums: the statistics that they are of.
        solutions: of each pair.
        bases: of each pair.
        ranks: of each pair, which its solution supports.
        ridges: of each pair.
        center: whether the student's means are removed where there is a regression.
        heads: of the pair of LM heads, if there is one.
        provenance: see `Bridge`.
    """
    student_mean = sums.student_mean.clone().mul_(center)
    teacher_mean = sums.teacher_mean[list(sums.teacher_index)]
    fits = [_pair_fit(*of) for of in zip(solutions, ranks, ridges, strict=True)]
    if heads is not None:
        # Zero means something to a head: the mean difference of logits is a difference.
        place = bases.index(HEADS)
        student_mean[place], teacher_mean[place] = heads.student_mean, 0
        fits[place] = replace(fits[place], ridge=0.0, unreachable=heads.unreachable)
    cut = list(zip(solutions, ranks, strict=True))
    return Bridge(
        sums.pairs,
        student_projection=[solution.student_projection[:rank] for solution, rank in cut],
        student_mean=student_mean,
        teacher_projection=[solution.teacher_projection[:rank] for solution, rank in cut],
        teacher_mean=teacher_mean,
        statistics=fits,
        rows=sums.count,
        basis=bases,
        center=center,
        heads_metric=None if heads is None else heads.metric,
        provenance=provenance,
    )


def _pair_fit(solution: PairSolution, rank: int, ridge: float) -> PairFit:
    return PairFit(
        eigenvalues=solution.eigenvalues.cpu(),
        r_squared=solution.r_squared.cpu(),
        cosine=moment_cosine(solution, rank),
        explained_variance=explained_variance(solution, rank),
        ridge=ridge,
    )
