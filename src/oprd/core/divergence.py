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
In the place of hidden states [B, K, width], the mask's rows alone will do: [N, width], in its
order, as `oprd.core.capture` gives them for a mask.

Letters: B sequences, K response tokens, N supervised rows, n rows of a chunk, V vocabulary, k top
entries, M ids of a support.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from oprd.core.chunked import Formula, Slope, sum_loss
from oprd.core.head import LMHead
from oprd.core.pair import Chunk, check_k, log_softmax_at, select_pair, supervised_ids
from oprd.core.reduction import LossSum, Reduction

Support = Literal["student", "teacher", "union"]
Direction = Literal["reverse", "forward"]


def sampled_token_loss(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    student_head: LMHead | Tensor,
    teacher_head: LMHead | Tensor,
    mask: Tensor,
    token_ids: Tensor,
    *,
    temperature: float = 1.0,
    reduction: Reduction = "sequence",
) -> LossSum:
    """The reverse KL's one-sample estimate at the rollout's own tokens (Eq. 3).

    The value is u_t = log p_t(ŷ_t) − log q_t(ŷ_t). The gradient is the score function's,
    u_t ∇log p_t(ŷ_t) with u_t held constant; ∇u_t itself has mean zero and would train nothing.

    Args:
        student_hidden: [B, K, student width], row t the state that predicts token t.
        teacher_hidden: [B, K, teacher width], on the same tokens.
        student_head: an `LMHead`, or its weight [V, student width].
        teacher_head: an `LMHead`, or its weight [V, teacher width].
        mask: [B, K], true where a position is supervised; other rows are never read.
        token_ids: [B, K] integers, the rollout ŷ; ids outside the mask are never read.
        temperature: divides both models' logits; the rollout's own, for an unbiased estimate.
        reduction: see `oprd.core.reduction.position_weights`.

    Returns:
        The total, float32 (float64 for float64 student states), and its count.

    Raises:
        ValueError: a shape, the temperature, the reduction or a supervised token id is out of
            bounds, or the vocabularies differ in size.
    """
    pair = select_pair(
        student_hidden, teacher_hidden, student_head, teacher_head, mask, temperature
    )
    ids = supervised_ids(token_ids, pair)

    def formula(chunk: Chunk) -> Slope:
        token = ids[chunk.part, None]
        log_q, *_ = log_softmax_at(chunk.teacher_logits(), token)
        log_p, exponentials, total = log_softmax_at(chunk.student_logits(), token)
        u = log_p - log_q
        return Slope(u.squeeze(1), exponentials.mul_(-u / total).scatter_add_(1, token, u))

    return sum_loss(pair, formula, reduction)


def topk_loss(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    student_head: LMHead | Tensor,
    teacher_head: LMHead | Tensor,
    mask: Tensor,
    *,
    k: int = 16,
    support: Support = "student",
    renormalize: bool = True,
    temperature: float = 1.0,
    reduction: Reduction = "sequence",
) -> LossSum:
    """The reverse KL on a few likely tokens S_t (Eq. 5).

    Renormalised, both distributions are conditioned on S_t: the value is KL(p(·|S_t) ‖ q(·|S_t)),
    and only the logits in S_t have a gradient. Otherwise it is the truncated sum
    Σ_{v∈S_t} p_t(v) (log p_t(v) − log q_t(v)), which may be negative, also falls when the student
    moves probability out of S_t, and at p = q still has a slope. S_t is held constant.

    Args:
        student_hidden: [B, K, student width], row t the state that predicts token t.
        teacher_hidden: [B, K, teacher width], on the same tokens.
        student_head: an `LMHead`, or its weight [V, student width].
        teacher_head: an `LMHead`, or its weight [V, teacher width].
        mask: [B, K], true where a position is supervised; other rows are never read.
        k: how many tokens, 1..V.
        support: S_t is the `"student"`'s k most likely tokens, the `"teacher"`'s, or the
            `"union"` of the two, with up to 2k.
        renormalize: see above; the paper's experiments do not.
        temperature: divides both models' logits.
        reduction: see `oprd.core.reduction.position_weights`.

    Returns:
        The total, float32 (float64 for float64 student states), and its count.

    Raises:
        ValueError: a shape, k, the support, the temperature or the reduction is out of bounds, or
            the vocabularies differ in size.
    """
    pair = select_pair(
        student_hidden, teacher_hidden, student_head, teacher_head, mask, temperature
    )
    if support not in get_args(Support):
        raise ValueError(f"support must be one of {get_args(Support)}, got {support!r}.")
    check_k(k, pair)

    def renormalized(chunk: Chunk) -> Slope:
        student = _top_ids(chunk.student_logits(), k) if support != "teacher" else None
        teacher = _top_ids(chunk.teacher_logits(), k) if support != "student" else None
        ids, inside = _join(student, teacher)
        log_p = _log_softmax_within(chunk.student_logits_at(ids), inside)
        log_q = _log_softmax_within(chunk.teacher_logits_at(ids), inside)
        return _reverse_kl(log_p, log_p.exp(), log_q)._replace(ids=ids)

    def truncated(chunk: Chunk) -> Slope:
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

    return sum_loss(pair, renormalized if renormalize else truncated, reduction)


def full_kl_loss(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    student_head: LMHead | Tensor,
    teacher_head: LMHead | Tensor,
    mask: Tensor,
    *,
    direction: Direction = "reverse",
    temperature: float = 1.0,
    reduction: Reduction = "sequence",
) -> LossSum:
    """The exact divergence over the whole vocabulary: KL(p‖q) (Eq. 4) or KL(q‖p).

    Args:
        student_hidden: [B, K, student width], row t the state that predicts token t.
        teacher_hidden: [B, K, teacher width], on the same tokens.
        student_head: an `LMHead`, or its weight [V, student width].
        teacher_head: an `LMHead`, or its weight [V, teacher width].
        mask: [B, K], true where a position is supervised; other rows are never read.
        direction: `"reverse"` is KL(p‖q), student first; `"forward"` is KL(q‖p).
        temperature: divides both models' logits.
        reduction: see `oprd.core.reduction.position_weights`.

    Returns:
        The total, float32 (float64 for float64 student states), and its count.

    Raises:
        ValueError: a shape, the direction, the temperature or the reduction is out of bounds, or
            the vocabularies differ in size.
    """
    if direction not in get_args(Direction):
        raise ValueError(f"direction must be one of {get_args(Direction)}, got {direction!r}.")
    pair = select_pair(
        student_hidden, teacher_hidden, student_head, teacher_head, mask, temperature
    )
    formula = _reverse_formula if direction == "reverse" else _forward_formula
    return sum_loss(pair, formula, reduction)


def jsd_loss(
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    student_head: LMHead | Tensor,
    teacher_head: LMHead | Tensor,
    mask: Tensor,
    *,
    beta: float = 0.5,
    temperature: float = 1.0,
    reduction: Reduction = "sequence",
) -> LossSum:
    """The generalised Jensen–Shannon divergence β KL(q‖m) + (1−β) KL(p‖m), m = (1−β) p + β q.

    β is TRL's. At its ends, where the expression is zero, β = 0 is the forward KL(q‖p) and β = 1
    the reverse KL(p‖q), the limits of the expression divided by β and by 1−β.

    Args:
        student_hidden: [B, K, student width], row t the state that predicts token t.
        teacher_hidden: [B, K, teacher width], on the same tokens.
        student_head: an `LMHead`, or its weight [V, student width].
        teacher_head: an `LMHead`, or its weight [V, teacher width].
        mask: [B, K], true where a position is supervised; other rows are never read.
        beta: the teacher's share in the mixture, 0..1.
        temperature: divides both models' logits.
        reduction: see `oprd.core.reduction.position_weights`.

    Returns:
        The total, float32 (float64 for float64 student states), and its count.

    Raises:
        ValueError: a shape, beta, the temperature or the reduction is out of bounds, or the
            vocabularies differ in size.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must be between 0 (forward KL) and 1 (reverse KL), got {beta}.")
    pair = select_pair(
        student_hidden, teacher_hidden, student_head, teacher_head, mask, temperature
    )
    return sum_loss(pair, _jsd_formula(beta), reduction)


def _reverse_formula(chunk: Chunk) -> Slope:
    log_q = chunk.log_q()
    return _reverse_kl(*chunk.student(), log_q)


def _forward_formula(chunk: Chunk) -> Slope:
    log_p = chunk.log_p()
    log_q, q = chunk.teacher()
    values = log_q.sub_(log_p).mul_(q).sum(1)
    return Slope(values, log_p.exp_().sub_(q))


def _jsd_formula(beta: float) -> Formula:
    if beta == 0:
        return _forward_formula
    if beta == 1:
        return _reverse_formula

    def formula(chunk: Chunk) -> Slope:
        log_p, log_q = chunk.log_p(), chunk.log_q()
        log_m = chunk.scratch()
        torch.logaddexp(log_p + math.log1p(-beta), log_q + math.log(beta), out=log_m)
        q = log_q.exp()
        from_teacher = log_q.sub_(log_m).mul_(q).sum(1)
        from_student, slope, _ = _reverse_kl(log_p, torch.exp(log_p, out=q), log_m)
        return Slope(beta * from_teacher + (1 - beta) * from_student, slope.mul_(1 - beta))

    return formula


def _reverse_kl(log_p: Tensor, p: Tensor, log_q: Tensor) -> Slope:
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
