"""The distance of two models' logits from its definition: all logits, M itself, float64."""

import torch
from torch import Tensor

from oprd.core.output.head import LMHead


def logits(head: LMHead, rows: Tensor, vocab_size: int) -> Tensor:
    """[N, V] before a softcap, over the first ids."""
    products = rows @ head.weight.double().T
    if head.bias is not None:
        products = products + head.bias.double()
    return head.scale * products[:, :vocab_size]


def distributions(head: LMHead, rows: Tensor, vocab_size: int) -> Tensor:
    """[N, V] of the model, its softcap included."""
    z = logits(head, rows, vocab_size)
    if head.softcap is not None:
        z = head.softcap * (z / head.softcap).tanh()
    return z.softmax(dim=1)


def metric_matrix(metric: str, q: Tensor) -> Tensor:
    """M [V, V], from the teacher's distributions [N, V] on calibration rows."""
    size = q.shape[1]
    if metric == "centered":
        return (torch.eye(size).double() - torch.ones(size, size).double() / size) / size
    if metric == "prior":
        prior = q.mean(dim=0)
        return (prior.diag() - torch.outer(prior, prior)) / 2
    return sum((row.diag() - torch.outer(row, row)) / 2 for row in q) / len(q)


def squared_distances(
    student: LMHead, teacher: LMHead, h_s: Tensor, h_t: Tensor, matrix: Tensor
) -> Tensor:
    """[N] D² of rows [N, S] and [N, H]."""
    size = len(matrix)
    difference = logits(student, h_s, size) - logits(teacher, h_t, size)
    return torch.einsum("nv,vw,nw->n", difference, matrix, difference)
