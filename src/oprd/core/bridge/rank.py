"""Theorem 3: the rank that balances what a bridge drops against what it cannot reach.

    E(r) = Σ_{i>r} λ_i ρ_i² + Σ_{i≤r} λ_i (1 − ρ_i²)

Component i is worth keeping when the student predicts more than half of it: E(r) − E(r−1) =
λ_r (1 − 2ρ_r²).

Letters: H teacher width.
"""

import torch
from torch import Tensor


def rank_error(eigenvalues: Tensor, r_squared: Tensor) -> Tensor:
    """E(r) for every rank r = 0..H.

    Args:
        eigenvalues: [H] λ_i, floating.
        r_squared: [H] ρ_i².

    Returns:
        [H + 1], E(r) at index r.

    Raises:
        ValueError: the two are not vectors of one length.
    """
    if eigenvalues.ndim != 1 or eigenvalues.shape != r_squared.shape:
        raise ValueError(
            "eigenvalues and r_squared must be vectors of one length, got "
            f"{tuple(eigenvalues.shape)} and {tuple(r_squared.shape)}."
        )
    dropped = eigenvalues * r_squared
    unreachable = eigenvalues * (1 - r_squared)
    zero = eigenvalues.new_zeros(1)
    return torch.cat([zero, unreachable.cumsum(0)]) + torch.cat(
        [dropped.flip(0).cumsum(0).flip(0), zero]
    )


def best_rank(eigenvalues: Tensor, r_squared: Tensor) -> int:
    """r*, the smallest rank that minimises E(r): where ρ_i² crosses 1/2 if it falls with i.

    0 when no leading components are predicted well enough.

    Args:
        eigenvalues: [H] λ_i.
        r_squared: [H] ρ_i².
    """
    # From the steps and not from E itself, where those of small λ would be lost to rounding.
    steps = eigenvalues * (1 - 2 * r_squared)
    gain = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    return int(gain.argmin())
