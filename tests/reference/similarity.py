"""Debiased linear CKA from its definition: whole Gram matrices, in float64, one pair at a time."""

import torch
from torch import Tensor


def hsic(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741 # Song et al.'s letter
    """Song et al. 2012, Eq. 5: an unbiased estimate from Gram matrices [N, N]."""
    n = len(k)
    k, l = k - torch.diag(k.diag()), l - torch.diag(l.diag())  # noqa: E741
    one = torch.ones(n, 1, dtype=torch.float64)
    first = torch.trace(k @ l)
    second = (one.T @ k @ one) * (one.T @ l @ one) / ((n - 1) * (n - 2))
    third = 2 / (n - 2) * (one.T @ k @ l @ one)
    return (first + second - third).squeeze() / (n * (n - 3))


def hsic_over_quadruples(k: Tensor, l: Tensor) -> float:  # noqa: E741
    """The same as a mean over all ordered quadruples of different rows, for a handful of rows.

    E[K_ij L_ij] + E[K_ij L_kl] − 2 E[K_ij L_ik], each over distinct indices, which is what makes
    the estimate unbiased.
    """
    n, values = len(k), []
    for i in range(n):
        for j in range(n):
            for a in range(n):
                for b in range(n):
                    if len({i, j, a, b}) == 4:
                        values.append(k[i, j] * (l[i, j] + l[a, b] - 2 * l[i, a]))
    return float(torch.stack(values).mean())


def debiased_cka(x: Tensor, y: Tensor) -> Tensor:
    """Nguyen et al. 2021, Eq. 3, for rows [N, D] of two layers."""
    k, l = x.double() @ x.double().T, y.double() @ y.double().T  # noqa: E741
    return hsic(k, l) / (hsic(k, k) * hsic(l, l)).sqrt()
