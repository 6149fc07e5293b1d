"""The difference of similarity matrices from its definition: every pair of positions by itself."""

import torch
from torch import Tensor


def cosine(a: Tensor, b: Tensor) -> Tensor:
    product = a.norm() * b.norm()
    return (a @ b) / product if product > 0 else torch.zeros((), dtype=torch.float64)


def gram_loss(student: Tensor, teacher: Tensor, mask: Tensor, reduction: str) -> tuple[Tensor, int]:
    total, count = torch.zeros((), dtype=torch.float64), 0
    for b in range(len(mask)):
        ours = [student[b, t].double() for t in range(mask.shape[1]) if mask[b, t]]
        theirs = [teacher[b, t].double().detach() for t in range(mask.shape[1]) if mask[b, t]]
        n = len(ours)
        if n:
            squares = [
                (cosine(ours[t], ours[s]) - cosine(theirs[t], theirs[s])) ** 2
                for t in range(n)
                for s in range(n)
            ]
            mean = torch.stack(squares).mean()
            total = total + (mean if reduction == "sequence" else n * mean)
            count += 1 if reduction == "sequence" else n
    return total, count
