"""The bridge of one layer pair, solved for every rank at once from its statistics.

Eq. 12  P_T: principal directions of the centred teacher states, µ_T their mean
Eq. 13  P_S = argmin Σ ‖P_S h_S − P_T (h_T − µ_T)‖²

The regression does not depend on the directions: with W = (Σ_SS + ridge)⁻¹ Σ_ST, P_S = P_T Wᵀ. A
bridge of rank r is the first r rows of both.

Letters: C components (directions of the teacher), S student width, H teacher width.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class PairMoments(NamedTuple):
    """Second-order statistics of one layer pair, float64.

    Attributes:
        rows: n, their number.
        student_mean: [S].
        student_scatter: [S, S] Σ (x − µ)(x − µ)ᵀ.
        teacher_scatter: [H, H] likewise.
        cross: [S, H] Σ (x − µ_x)(y − µ_y)ᵀ.
    """

    rows: int
    student_mean: Tensor
    student_scatter: Tensor
    teacher_scatter: Tensor
    cross: Tensor


class Directions(NamedTuple):
    """Directions of the teacher in order of importance, of which a bridge keeps the first.

    Attributes:
        rows: [H, H] the rows of P_T at full rank.
        supported: how many of them the data determine.
    """

    rows: Tensor
    supported: int


class PairSolution(NamedTuple):
    """One layer pair solved for every rank, float64.

    Attributes:
        student_projection: [C, S] rows of P_S, with C = min(S, H).
        teacher_projection: [C, H] rows of P_T.
        supported: the highest rank that the data determine.
        eigenvalues: [H] λ_i, the sample variance of teacher component i (under `"pca"` the
            eigenvalues of the sample covariance).
        r_squared: [H] ρ_i², the share of λ_i that the student predicts on the rows of the fit:
            1 − Σ (t_i − s_i)² / Σ t_i²; 0 for a component that does not vary.
        covariance: [H] sample moment of s_i and t_i.
        predicted: [H] sample moment of s_i with itself.
    """

    student_projection: Tensor
    teacher_projection: Tensor
    supported: int
    eigenvalues: Tensor
    r_squared: Tensor
    covariance: Tensor
    predicted: Tensor


def principal_directions(moment: Tensor, *, scale: bool = False) -> Directions:
    """Eigenvectors of a symmetric moment as rows, the largest eigenvalue first (Eq. 12).

    The entry of largest magnitude in each is positive, which makes the result deterministic.

    Args:
        moment: [H, H] float64, symmetric up to rounding.
        scale: multiply each direction by the root of its eigenvalue.
    """
    values, vectors = torch.linalg.eigh((moment + moment.T) / 2)
    values, rows = values.flip(0), vectors.T.flip(0)
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    rows = rows * largest.sign()
    supported = int((values > _rounding(values)).sum())
    if scale:
        rows = rows * values.clamp(min=0).sqrt()[:, None]
    return Directions(rows, supported)


def regress(moments: PairMoments, *, center: bool, ridge: float) -> Tensor:
    """The least-squares map from student to teacher states: W, with ĥ_T − µ_T = Wᵀ h_S (Eq. 13).

    Minimises Σ ‖Wᵀ (h_S − c) − (h_T − µ_T)‖² + ridge · n · σ² ‖W‖², where σ² is the student's mean
    variance and c is its mean for `center`, else 0 (Eq. 13 to the letter). Without a ridge the
    solution of least norm.

    Args:
        moments: of one layer pair.
        center: remove the student's mean.
        ridge: relative to σ², so that it does not depend on units; 0 or more.

    Returns:
        [S, H] float64.

    """
    scatter, mean, cross = moments.student_scatter, moments.student_mean, moments.cross
    width = scatter.shape[0]
    penalty = torch.full_like(mean, ridge * float(scatter.trace()) / width)
    penalised = scatter + torch.diag(penalty)
    factor, failed = torch.linalg.cholesky_ex(penalised)
    if ridge == 0 or failed:
        if not center:
            penalised = penalised + moments.rows * torch.outer(mean, mean)
        return torch.linalg.pinv(penalised, hermitian=True) @ cross
    weights = torch.cholesky_solve(cross, factor)
    if center:
        return weights
    # (A + n µµᵀ)⁻¹ by Sherman–Morrison: forming the sum would drown A when the mean is large.
    z = torch.cholesky_solve(mean[:, None], factor)[:, 0]
    share = moments.rows / (1 + moments.rows * (mean @ z))
    return weights - share * torch.outer(z, mean @ weights)


def predicted_scatter(moments: PairMoments, weights: Tensor) -> Tensor:
    """[H, H] Σ_TS (Σ_SS + ridge)⁻¹ Σ_ST, whose principal directions are those of `"rrr"`.

    Projected on its first r eigenvectors, the regression is the best of rank r (reduced-rank
    regression with the identity as weight).
    """
    return moments.cross.T @ weights


def solve_pair(
    moments: PairMoments, directions: Directions, weights: Tensor, *, center: bool
) -> PairSolution:
    """Put directions and regression together, with what they achieve on the rows of the fit.

    Args:
        moments: of one layer pair.
        directions: of the teacher.
        weights: [S, H] of `regress`.
        center: as it was given to `regress`.
    """
    freedom = max(moments.rows - 1, 1)
    teacher = directions.rows
    student = teacher @ weights.T
    eigenvalues = ((teacher @ moments.teacher_scatter) * teacher).sum(dim=1) / freedom
    covariance = ((student @ moments.cross) * teacher).sum(dim=1) / freedom
    predicted = ((student @ moments.student_scatter) * student).sum(dim=1) / freedom
    if not center:
        predicted += moments.rows / freedom * (student @ moments.student_mean).square()
    eigenvalues = eigenvalues.clamp(min=0)
    varies = eigenvalues > _rounding(eigenvalues)
    r_squared = torch.where(varies, (2 * covariance - predicted) / eigenvalues, 0).clamp(0, 1)
    components = min(weights.shape)
    return PairSolution(
        student[:components].clone(),
        teacher[:components].clone(),
        min(directions.supported, moments.rows - 1, components),
        eigenvalues,
        r_squared,
        covariance,
        predicted,
    )


def moment_cosine(solution: PairSolution, rank: int) -> float:
    """E⟨s, t⟩ / √(E‖s‖² E‖t‖²) at a rank, over the rows of the fit.

    One cosine for all rows, weighted by their norms. The mean of the rows' own cosines is not a
    function of second moments: `oprd.core.bridge.score` measures it on rows.
    """
    moments = (solution.covariance, solution.predicted, solution.eigenvalues)
    covariance, predicted, variance = (float(moment[:rank].sum()) for moment in moments)
    norms = (predicted * variance) ** 0.5
    return covariance / norms if norms > 0 else 0.0


def explained_variance(solution: PairSolution, rank: int) -> float:
    """Σ_{i≤r} λ_i / Σ_i λ_i: the share of the teacher's variance that a rank keeps."""
    total = float(solution.eigenvalues.sum())
    return float(solution.eigenvalues[:rank].sum()) / total if total > 0 else 0.0


def is_constant(count: int, mean: Tensor, scatter: Tensor) -> bool:
    """Whether `count` rows are one and the same vector, up to the rounding of its mean."""
    rounding = 64 * torch.finfo(mean.dtype).eps
    return bool(scatter.trace() <= count * rounding**2 * (mean @ mean))


def _rounding(values: Tensor) -> Tensor:
    return values.max() * len(values) * torch.finfo(values.dtype).eps
