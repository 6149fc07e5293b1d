"""Output-space on-policy distillation (Eqs. 3–5), from last hidden states and LM heads.

p and q are the student's and the teacher's next-token distributions at one position of the
student's rollout, z the student's logits. Each loss is a formula for its value and its slope ∂/∂z:

    sampled token   log p(ŷ) − log q(ŷ)         slope u · (1_ŷ − p), u the value, held constant
    top-k           Σ_S p (log p − log q)       p and q renormalised on S, or not
    reverse KL      Σ p (log p − log q)         slope p · (log p − log q − KL)
    forward KL      Σ q (log q − log p)         slope p − q
    JSD             β KL(q‖m) + (1−β) KL(p‖m)   m = (1−β) p + β q

No [B, K, V] tensor exists at any time, and only supervised rows meet a head. Gradients go to the
student's states and to its head's weight and bias, where these require them, never to the teacher.

Letters: n rows of a chunk, V vocabulary, k top entries, M ids of a support.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from oprd.core.output.chunk import Chunk, log_softmax_at
from oprd.core.output.loss import OutputLoss, Slope

Support = Literal["student", "teacher", "union"]


@dataclass(frozen=True)
class SampledToken(OutputLoss):
    """The reverse KL's one-sample estimate at the rollout's own tokens (Eq. 3).

    The value is u_t = log p_t(ŷ_t) − log q_t(ŷ_t). The gradient is the score function's,
    u_t ∇log p_t(ŷ_t) with u_t held constant; ∇u_t itself has mean zero and would train nothing. It
    has no bias at the temperature of the rollout.
    """

    own_rollouts: ClassVar[bool] = True
    whole: ClassVar[bool] = False

    def __call__(self, chunk: Chunk) -> Slope:
        """See `OutputLoss`."""
        token = chunk.token_ids[:, None]
        log_q, *_ = log_softmax_at(chunk.teacher_logits(), token)
        log_p, exponentials, total = log_softmax_at(chunk.student_logits(), token)
        u = log_p - log_q
        return Slope(u.squeeze(1), exponentials.mul_(-u / total).scatter_add_(1, token, u))


@dataclass(frozen=True)
class TopK(OutputLoss):
    """The reverse KL on a few likely tokens S_t (Eq. 5).

    Renormalised, both distributions are conditioned on S_t: the value is KL(p(·|S_t) ‖ q(·|S_t)),
    and only the logits in S_t have a gradient. Otherwise it is the truncated sum
    Σ_{v∈S_t} p_t(v) (log p_t(v) − log q_t(v)) of the paper's experiments, which may be negative,
    also falls when the student moves probability out of S_t, and at p = q still has a slope. S_t is
    held constant.

    Attributes:
        k: how many tokens.
        support: S_t is the `"student"`'s k most likely tokens, the `"teacher"`'s, or the
            `"union"` of the two, with up to 2k.
        renormalize: see above.

    Raises:
        ValueError: a value is out of bounds.
    """

    whole: ClassVar[bool] = False

    k: int = 16
    support: Support = "student"
    renormalize: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"k must be a whole number of at least 1, got {self.k!r}.")
        if self.support not in get_args(Support):
            raise ValueError(f"support must be one of {get_args(Support)}, got {self.support!r}.")
        if not isinstance(self.renormalize, bool):
            raise ValueError(f"renormalize must be true or false, got {self.renormalize!r}.")

    def check(self, vocab_size: int) -> None:
        """Refuse, with a ValueError, a vocabulary of fewer than k tokens."""
        check_k(self.k, vocab_size)

    def __call__(self, chunk: Chunk) -> Slope:
        """See `OutputLoss`."""
        return self._renormalized(chunk) if self.renormalize else self._truncated(chunk)

    def _renormalized(self, chunk: Chunk) -> Slope:
        k, support = self.k, self.support
        student = _top_ids(chunk.student_logits(), k) if support != "teacher" else None
        teacher = _top_ids(chunk.teacher_logits(), k) if support != "student" else None
        ids, inside = _join(student, teacher)
        log_p = _log_softmax_within(chunk.student_logits_at(ids), inside)
        log_q = _log_softmax_within(chunk.teacher_logits_at(ids), inside)
        return reverse_kl(log_p, log_p.exp(), log_q)._replace(ids=ids)

    def _truncated(self, chunk: Chunk) -> Slope:
        k, support = self.k, self.support
        student_logits, teacher_logits = chunk.student_logits(), chunk.teacher_logits()
        student = _top_ids(student_logits, k) if support != "teacher" else None
        teacher = _top_ids(teacher_logits, k) if support != "student" else None
        ids, inside = _join(student, teacher)
        log_q, *_ = log_softmax_at(teacher_logits, ids)
        log_p, exponentials, total = log_softmax_at(student_logits, ids)
        p, log_ratio = log_p.exp().masked_fill_(~inside, 0), log_p - log_q
        # ∂/∂z_v Σ_S p (log p − log q) = 1_S(v) g_v − p_v Σ_S g, with g = p (log p − log q + 1).
        g = p * (log_ratio + 1)
        slope = exponentials.mul_(-g.sum(1, keepdim=True) / total).scatter_add_(1, ids, g)
        return Slope((p * log_ratio).sum(1), slope)


@dataclass(frozen=True)
class ReverseKL(OutputLoss):
    """The exact divergence KL(p‖q) over the whole vocabulary (Eq. 4)."""

    def __call__(self, chunk: Chunk) -> Slope:
        """See `OutputLoss`."""
        log_q = chunk.log_q()
        return reverse_kl(*chunk.student(), log_q)


@dataclass(frozen=True)
class ForwardKL(OutputLoss):
    """The exact divergence KL(q‖p) over the whole vocabulary."""

    def __call__(self, chunk: Chunk) -> Slope:
        """See `OutputLoss`."""
        log_p = chunk.log_p()
        log_q, q = chunk.teacher()
        values = log_q.sub_(log_p).mul_(q).sum(1)
        return Slope(values, log_p.exp_().sub_(q))


@dataclass(frozen=True)
class JSD(OutputLoss):
    """The generalised Jensen–Shannon divergence β KL(q‖m) + (1−β) KL(p‖m), m = (1−β) p + β q.

    β is TRL's. At its ends, where the expression is zero, β = 0 is the forward KL(q‖p) and β = 1
    the reverse KL(p‖q), the limits of the expression divided by β and by 1−β.

    Attributes:
        beta: the teacher's share in the mixture, 0..1.

    Raises:
        ValueError: it is out of bounds.
    """

    # Both terms of the mixture.
    spare: ClassVar[int] = 2

    beta: float = 0.5

    def __post_init__(self) -> None:
        is_number = isinstance(self.beta, int | float) and not isinstance(self.beta, bool)
        if not is_number or not 0 <= self.beta <= 1:
            raise ValueError(
                f"beta must be between 0 (forward KL) and 1 (reverse KL), got {self.beta!r}."
            )

    def __call__(self, chunk: Chunk) -> Slope:
        """See `OutputLoss`."""
        beta = self.beta
        if beta in (0, 1):
            return (ReverseKL() if beta else ForwardKL())(chunk)
        log_p, log_q = chunk.log_p(), chunk.log_q()
        log_m = chunk.scratch()
        torch.logaddexp(log_p + math.log1p(-beta), log_q + math.log(beta), out=log_m)
        q = log_q.exp()
        from_teacher = log_q.sub_(log_m).mul_(q).sum(1)
        from_student, slope, _ = reverse_kl(log_p, torch.exp(log_p, out=q), log_m)
        return Slope(beta * from_teacher + (1 - beta) * from_student, slope.mul_(1 - beta))


def check_k(k: int, vocab_size: int) -> None:
    """Refuse, with a ValueError, a k outside 1..V."""
    if not 1 <= k <= vocab_size:
        raise ValueError(f"k must be between 1 and the vocabulary's {vocab_size} tokens, got {k}.")


def reverse_kl(log_p: Tensor, p: Tensor, log_q: Tensor) -> Slope:
    """Σ p (log p − log q) with slope p (log p − log q − KL); overwrites the logarithms."""
    terms = torch.mul(p, log_p.sub_(log_q), out=log_q)
    values = terms.sum(1)
    return Slope(values, terms.addcmul_(p, values[:, None], value=-1))


def _top_ids(scores: Tensor, k: int) -> Tensor:
    return scores.topk(k, dim=1, sorted=False).indices


def _join(student: Tensor | None, teacher: Tensor | None) -> tuple[Tensor, Tensor]:
    """The ids of a support [n, M], and which of them count: an id in both counts once."""
    only = student if teacher is None else teacher
    assert only is not None
    if student is None or teacher is None:
        return only, torch.ones_like(only, dtype=torch.bool)
    new = ~is_among(teacher, student)
    inside = torch.cat([torch.ones_like(new), new], dim=1)
    return torch.cat([student, teacher], dim=1), inside


def is_among(ids: Tensor, others: Tensor) -> Tensor:
    """Which of the ids [n, k] are among the others [n, k] of their row, without a [n, k, k]."""
    others = others.sort(dim=1).values
    place = torch.searchsorted(others, ids).clamp_(max=others.shape[1] - 1)
    return others.gather(1, place) == ids


def _log_softmax_within(logits: Tensor, inside: Tensor) -> Tensor:
    """Log-probabilities renormalised on `inside`; elsewhere so low that p is 0, yet finite."""
    floor = torch.finfo(logits.dtype).min / 4
    return logits.masked_fill(~inside, floor).log_softmax(dim=1)
