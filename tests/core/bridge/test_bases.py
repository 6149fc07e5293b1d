"""What is built into a pair is found again: directions, ρ², rank; and the optimum of each basis."""

import pytest
import torch

from oprd.core.bridge import BridgeFitter
from oprd.core.bridge.rank import best_rank, rank_error
from tests.reference import bridge as reference

N, S, H = 400, 8, 6
EIGENVALUES = torch.tensor([9.0, 5.0, 3.0, 2.0, 1.0, 0.5], dtype=torch.float64)
R_SQUARED = torch.tensor([0.95, 0.8, 0.6, 0.3, 0.1, 0.0], dtype=torch.float64)


def orthonormal(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(square).Q


@pytest.fixture(scope="module")
def constructed():
    """A teacher that is a linear image of the student plus noise in known directions.

    The factors have exactly zero mean and unit covariance in the sample, so that what is built in
    is what a fit must find, with no sampling error to allow for.
    """
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(N, S + H, generator=generator, dtype=torch.float64)
    factors = torch.linalg.qr(factors - factors.mean(0)).Q * (N - 1) ** 0.5
    z, noise = factors[:, :S], factors[:, S:]
    directions = reference.signed(orthonormal(H, H, 1).T)
    components = EIGENVALUES.sqrt() * (R_SQUARED.sqrt() * z[:, :H] + (1 - R_SQUARED).sqrt() * noise)
    mixing = torch.randn(S, S, generator=generator, dtype=torch.float64)
    student, teacher = z @ mixing + 3, components @ directions - 2
    fitter = BridgeFitter([(1, 1)], S, H)
    fitter.update({1: student}, {1: teacher})
    return fitter, student, teacher, directions


def test_recovers_the_directions_that_were_built_in(constructed):
    fitter, _, teacher, directions = constructed
    bridge = fitter.solve(H, ridge=0)
    torch.testing.assert_close(bridge.teacher_projections[0], directions, atol=1e-9, rtol=0)
    torch.testing.assert_close(bridge.teacher_mean[0], teacher.mean(0), atol=1e-12, rtol=0)


def test_recovers_the_variances_and_what_the_student_predicts(constructed):
    fit = constructed[0].solve(3, ridge=0).statistics[1]
    torch.testing.assert_close(fit.eigenvalues, EIGENVALUES, atol=1e-9, rtol=0)
    torch.testing.assert_close(fit.r_squared, R_SQUARED, atol=1e-9, rtol=0)
    assert fit.explained_variance == pytest.approx(17 / 20.5)
    # With the optimal map E⟨s,t⟩ = E‖s‖² = Σ λρ², so the cosine is √(Σ λρ² / Σ λ).
    predicted = float((EIGENVALUES * R_SQUARED)[:3].sum())
    assert fit.cosine == pytest.approx((predicted / 17) ** 0.5)


def test_recovers_the_rank_that_was_built_in(constructed):
    fit = constructed[0].solve(1, ridge=0).statistics[1]
    assert best_rank(fit.eigenvalues, fit.r_squared) == 3


def test_the_default_ridge_changes_little(constructed):
    fit = constructed[0].solve(3).statistics[1]
    torch.testing.assert_close(fit.r_squared, R_SQUARED, atol=1e-6, rtol=0)


def test_the_errors_by_rank_are_those_of_theorem_3():
    errors = rank_error(EIGENVALUES, R_SQUARED)
    for rank in range(H + 1):
        dropped = sum(EIGENVALUES[i] * R_SQUARED[i] for i in range(rank, H))
        unreachable = sum(EIGENVALUES[i] * (1 - R_SQUARED[i]) for i in range(rank))
        assert float(errors[rank]) == pytest.approx(float(dropped + unreachable))
    assert int(errors.argmin()) == best_rank(EIGENVALUES, R_SQUARED) == 3


@pytest.mark.parametrize(
    ("r_squared", "expected"),
    [
        ([0.4, 0.3, 0.2], 0),
        ([0.9, 0.8, 0.7], 3),
        ([0.9, 0.5, 0.1], 1),
        ([0.9, 0.4, 0.9], 3),
        ([0.2, 0.6, 0.1], 0),
    ],
)
def test_the_best_rank_minimises_the_error_also_where_r_squared_rises_again(r_squared, expected):
    eigenvalues = torch.tensor([3.0, 1.0, 0.5])
    assert best_rank(eigenvalues, torch.tensor(r_squared)) == expected


def test_spectra_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="vectors of one length"):
        rank_error(EIGENVALUES, R_SQUARED[:-1])


@pytest.mark.parametrize("center", [True, False])
def test_reduced_rank_regression_predicts_the_teacher_best(constructed, center):
    fitter, student, teacher, _ = constructed
    x = student - student.mean(0) if center else student
    y = teacher - teacher.mean(0)
    weights = reference.least_squares(student, y, center=center, ridge=0.0)
    for rank in (1, 2, 4):
        bridge = fitter.solve(rank, basis="rrr", center=center, ridge=0)
        p_t = bridge.teacher_projections[0]
        prediction = bridge.project_student(1, student) @ p_t
        # The best approximation of rank r of the full prediction (Eckart–Young).
        u, singular, v = torch.linalg.svd(x @ weights.T, full_matrices=False)
        best = (u[:, :rank] * singular[:rank]) @ v[:rank]
        torch.testing.assert_close(prediction, best, atol=1e-8, rtol=0)
        torch.testing.assert_close(p_t @ p_t.T, torch.eye(rank, dtype=torch.float64))


def test_reduced_rank_regression_refuses_ranks_that_the_student_cannot_reach(constructed):
    # ρ² of the last component is 0, so that the student reaches five directions.
    with pytest.raises(ValueError, match="determine 5 directions of basis 'rrr'"):
        constructed[0].solve(6, basis="rrr", ridge=0)


def test_fisher_distance_is_the_gradients_quadratic_form(constructed):
    _, student, teacher, _ = constructed
    generator = torch.Generator().manual_seed(2)
    gradients = torch.randn(N, H, generator=generator, dtype=torch.float64) * EIGENVALUES + 0.3
    fitter = BridgeFitter([(1, 1)], S, H)
    fitter.update({1: student[:100]}, {1: teacher[:100]}, teacher_gradients={1: gradients[:100]})
    fitter.update({1: student[100:]}, {1: teacher[100:]}, teacher_gradients={1: gradients[100:]})
    moment = gradients.T @ gradients / N
    p_t = fitter.solve(H, basis="fisher").teacher_projections[0]
    torch.testing.assert_close(p_t.T @ p_t, moment, atol=1e-9, rtol=1e-9)
    gram = p_t @ p_t.T
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()), atol=1e-8, rtol=0)
    assert bool((gram.diagonal().diff() < 0).all())


def test_fisher_averages_over_the_rows_that_had_a_gradient(constructed):
    _, student, teacher, _ = constructed
    gradients = teacher[:100] * 1e-9
    fitter = BridgeFitter([(1, 1)], S, H)
    fitter.update({1: student[:100]}, {1: teacher[:100]}, teacher_gradients={1: gradients})
    fitter.update({1: student[100:]}, {1: teacher[100:]})
    bridge = fitter.solve(2, basis="fisher", ridge=0)
    values = torch.linalg.eigvalsh(gradients.T @ gradients / 100).flip(0)
    torch.testing.assert_close(
        bridge.teacher_projections[0].square().sum(1), values[:2], rtol=1e-9, atol=0
    )
    t = (teacher - teacher.mean(0)) @ bridge.teacher_projections[0].T
    s = bridge.project_student(1, student)
    fit = bridge.statistics[1]
    torch.testing.assert_close(fit.r_squared[:2], reference.r_squared(s, t))
    torch.testing.assert_close(fit.eigenvalues[:2], t.var(0), rtol=1e-9, atol=0)
    assert fit.cosine == pytest.approx(
        float((s * t).sum() / (s.square().sum() * t.square().sum()).sqrt())
    )


@pytest.mark.parametrize("basis", ["pca", "rrr", "fisher"])
@pytest.mark.parametrize("center", [True, False])
def test_statistics_of_every_basis_equal_those_of_the_rows(constructed, basis, center):
    _, student, teacher, _ = constructed
    fitter = BridgeFitter([(1, 1)], S, H)
    fitter.update({1: student}, {1: teacher}, teacher_gradients={1: teacher.flip(1)})
    bridge = fitter.solve(4, basis=basis, center=center, ridge=0.01)
    s, t = bridge.project_student(1, student), bridge.project_teacher(1, teacher)
    fit = bridge.statistics[1]
    torch.testing.assert_close(fit.eigenvalues[:4], t.var(0))
    torch.testing.assert_close(fit.r_squared[:4], reference.r_squared(s, t))
    assert fit.cosine == pytest.approx(
        float((s * t).sum() / (s.square().sum() * t.square().sum()).sqrt())
    )
