"""Eqs. 3–5 and the divergences around them from their definitions, one position at a time.

Float64 and ordinary autograd; q is a constant. A head is (weight, bias, scale, softcap).
"""

import torch
from torch import Tensor


def log_probabilities(hidden: Tensor, head: tuple, temperature: float) -> Tensor:
    weight, bias, scale, softcap = head
    logits = weight.double() @ hidden.double()
    if bias is not None:
        logits = logits + bias.double()
    logits = logits * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logits = logits / temperature
    return logits - torch.log(torch.exp(logits).sum())


def sampled_token(log_p: Tensor, log_q: Tensor, token: int) -> Tensor:
    """A number whose value is u = log p − log q and whose gradient is u ∇log p."""
    u = (log_p[token] - log_q[token]).detach()
    return u * log_p[token] - (u * log_p[token]).detach() + u


def topk(log_p: Tensor, log_q: Tensor, k: int, support: str, renormalize: bool) -> Tensor:
    student = set(log_p.argsort(descending=True)[:k].tolist())
    teacher = set(log_q.argsort(descending=True)[:k].tolist())
    ids = {"student": student, "teacher": teacher, "union": student | teacher}[support]
    p = torch.stack([log_p[v].exp() for v in sorted(ids)])
    q = torch.stack([log_q[v].exp() for v in sorted(ids)])
    if renormalize:
        p, q = p / p.sum(), q / q.sum()
    return (p * (p / q).log()).sum()


def reverse_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum()


def forward_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_q.exp() * (log_q - log_p)).sum()


def jsd(log_p: Tensor, log_q: Tensor, beta: float) -> Tensor:
    p, q = log_p.exp(), log_q.exp()
    m = (1 - beta) * p + beta * q
    return (beta * q * (q / m).log() + (1 - beta) * p * (p / m).log()).sum()


def skewed_kl(log_p: Tensor, log_q: Tensor, alpha: float, mirror: bool) -> Tensor:
    p, q = log_p.exp(), log_q.exp()
    first, second = (q, p) if mirror else (p, q)
    return (first * (first / (alpha * first + (1 - alpha) * second)).log()).sum()


def total(value, student, teacher, student_head, teacher_head, mask, temperature, reduction):
    """Sum value(log_p, log_q, b, t) over a mask's positions, per sequence first or over tokens."""
    result, count = torch.zeros((), dtype=torch.float64), 0
    for b in range(mask.shape[0]):
        values = []
        for t in range(mask.shape[1]):
            if mask[b, t]:
                log_p = log_probabilities(student[b, t], student_head, temperature)
                log_q = log_probabilities(teacher[b, t], teacher_head, temperature).detach()
                values.append(value(log_p, log_q, b, t))
        if values:
            summed = torch.stack(values).sum()
            result = result + (summed / len(values) if reduction == "sequence" else summed)
            count += 1 if reduction == "sequence" else len(values)
    return result, count
