"""OPRD-Bridge from its definitions: all rows in memory, float64, one layer pair at a time."""

import torch
from torch import Tensor


def principal_rows(teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 12 by singular value decomposition of the centred rows: directions [H, H], λ [H]."""
    y = teacher.double() - teacher.double().mean(0)
    _, singular, rows = torch.linalg.svd(y, full_matrices=True)
    eigenvalues = torch.zeros(y.shape[1], dtype=torch.float64)
    eigenvalues[: len(singular)] = singular.square() / (len(y) - 1)
    return signed(rows), eigenvalues


def signed(rows: Tensor) -> Tensor:
    """Each row with its entry of largest magnitude positive."""
    return torch.stack([row * row[row.abs().argmax()].sign() for row in rows])


def least_squares(student: Tensor, target: Tensor, *, center: bool, ridge: float) -> Tensor:
    """Eq. 13 by QR of the rows themselves, the ridge as further rows. Returns P_S [R, S]."""
    x = student.double()
    variance = (x - x.mean(0)).square().sum() / x.shape[1]
    if center:
        x = x - x.mean(0)
    penalty = (ridge * variance).sqrt() * torch.eye(x.shape[1], dtype=torch.float64)
    zeros = torch.zeros(x.shape[1], target.shape[1], dtype=torch.float64)
    return torch.linalg.lstsq(torch.cat([x, penalty]), torch.cat([target, zeros])).solution.T


def fit_pair(
    student: Tensor, teacher: Tensor, rank: int, *, center: bool = True, ridge: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """The projected rows of both models after the fit: [N, R] each."""
    rows, _ = principal_rows(teacher)
    t = (teacher.double() - teacher.double().mean(0)) @ rows[:rank].T
    p_s = least_squares(student, t, center=center, ridge=ridge)
    x = student.double() - (student.double().mean(0) if center else 0)
    return x @ p_s.T, t


def r_squared(s: Tensor, t: Tensor) -> Tensor:
    """1 − Σ (t − s)² / Σ t², per component."""
    return 1 - (t - s).square().sum(0) / t.square().sum(0)
