"""What an LM head sees of a hidden state: the spectrum of its weight.

Logits are z = W h, and a shift of all of them by one number changes no distribution. So a
difference Δh is seen through W centred over the vocabulary alone,

    (I − 1/V 1 1ᵀ) W = U diag(σ) [v_1 … v_D]ᵀ,    ‖centred Δz‖² = Σ_i σ_i² (v_i · Δh)²

and not at all in the span of the v_i with σ_i = 0. h is the state after the final norm: the norm's
weight is part of h and not of W.

Letters: V vocabulary, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Singular values below this share of the largest are rounding errors of float32 weights.
ROUNDING = 1e-6
# Tokens of which a float64 copy is made at once.
BLOCK_TOKENS = 8192


class HeadSpectrum(NamedTuple):
    """Of a centred head.

    Attributes:
        values: [D] float64, σ_1 ≥ … ≥ σ_D, zeros for a null space included.
        directions: [D, D] float64, row i − 1 is v_i.
    """

    values: Tensor
    directions: Tensor

    @property
    def rank(self) -> int:
        """How many directions the head sees."""
        return int((self.values > ROUNDING * self.values[0]).sum())

    @property
    def condition(self) -> float:
        """σ_1 over the smallest that is not zero."""
        return float(self.values[0] / self.values[self.rank - 1])


def head_spectrum(weight: Tensor, scale: Tensor | None = None) -> HeadSpectrum:
    """Singular values and right singular vectors of a centred head.

    Args:
        weight: [V, D].
        scale: [D], multiplies the state first: a final norm's weight, to see the head from the
            state before it.
    """
    # Elsewhere than on CUDA there is no float64 off the CPU.
    device = weight.device if weight.device.type == "cuda" else torch.device("cpu")
    weight = weight.detach()
    mean = weight.to(device).mean(dim=0, dtype=torch.float64)
    gram = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=device)
    for block in weight.split(BLOCK_TOKENS):
        centred = block.to(device, torch.float64) - mean
        if scale is not None:
            centred *= scale.detach().to(device, torch.float64)
        gram.addmm_(centred.T, centred)
    squares, directions = torch.linalg.eigh(gram)
    return HeadSpectrum(squares.flip(0).clamp(min=0).sqrt(), directions.T.flip(0))
