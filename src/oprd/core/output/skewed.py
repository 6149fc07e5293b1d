"""The skewed Kullback–Leibler divergences: towards a mixture that both models have a share in.

    KL(p ‖ m),  m = α p + (1−α) q        and its mirror        KL(q ‖ m),  m = α q + (1−α) p

p is the student's next-token distribution, q the teacher's. Where the reverse or forward KL grows
without bound as one model calls unlikely what the other writes, these stay below −log α. They are
the reverse and the forward KL at α = 0.

With f the first distribution and a the student's share in m, z the student's logits:

    slope   p · (h − Σ p h),   h = log(p/m) − a p/m,   mirrored   h = −a q/m

Letters: n rows of a chunk, V vocabulary.
"""

import math
from dataclasses import dataclass

import torch

from oprd.core.output.chunk import Chunk
from oprd.core.output.divergence import ForwardKL, ReverseKL
from oprd.core.output.loss import OutputLoss, Slope


@dataclass(frozen=True)
class SkewedKL(OutputLoss):
    """KL(p ‖ α p + (1−α) q), or mirrored KL(q ‖ α q + (1−α) p), over the whole vocabulary.

    Attributes:
        alpha: the share of the first distribution in the mixture, 0 ≤ α < 1; at 0 the reverse KL,
            mirrored the forward KL.
        mirror: see above.

    Raises:
        ValueError: a value is out of bounds.
    """

    alpha: float = 0.1
    mirror: bool = False

    def __post_init__(self) -> None:
        is_number = isinstance(self.alpha, int | float) and not isinstance(self.alpha, bool)
        if not is_number or not 0 <= self.alpha < 1:
            raise ValueError(
                "alpha must be at least 0 (no skew) and below 1 (where nothing is left of the "
                f"other model), got {self.alpha!r}."
            )
        if not isinstance(self.mirror, bool):
            raise ValueError(f"mirror must be true or false, got {self.mirror!r}.")

    def __call__(self, chunk: Chunk) -> Slope:
        """See `OutputLoss`."""
        if self.alpha == 0:
            return (ForwardKL() if self.mirror else ReverseKL())(chunk)
        log_alpha, log_rest = math.log(self.alpha), math.log1p(-self.alpha)
        log_p, log_q = chunk.log_p(), chunk.log_q()
        log_f, log_g = (log_q, log_p) if self.mirror else (log_p, log_q)
        # The mixture over α, then log f/m, in the one buffer that is free.
        scratch = torch.add(log_g, log_rest - log_alpha, out=chunk.scratch())
        torch.logaddexp(log_f, scratch, out=scratch)
        log_ratio = torch.sub(log_f, scratch, out=scratch).sub_(log_alpha)
        f = log_f.exp_()
        p = log_p.exp_() if self.mirror else f
        terms = torch.mul(f, log_ratio, out=log_q)
        values = terms.sum(1)
        # p h, of which the first term is there where f is p.
        student_share = 1 - self.alpha if self.mirror else self.alpha
        slope = log_ratio.exp_().mul_(p).mul_(-student_share)
        if not self.mirror:
            slope.add_(terms)
        return Slope(values, slope.addcmul_(p, slope.sum(1, keepdim=True), value=-1))
