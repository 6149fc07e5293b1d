"""Eqs. 6 and 14 from their definitions: loops over sequences and positions, float64, autograd."""

import torch
from torch import Tensor


def representation_loss(
    student: Tensor, teacher: Tensor, mask: Tensor, unit_length: bool, reduction: str
) -> tuple[Tensor, int]:
    total, count = torch.zeros((), dtype=torch.float64), 0
    for b in range(len(mask)):
        distances = []
        for t in range(mask.shape[1]):
            if mask[b, t]:
                h_student, h_teacher = student[b, t].double(), teacher[b, t].double().detach()
                if unit_length:
                    h_student = h_student / h_student.norm()
                    h_teacher = h_teacher / h_teacher.norm()
                squares = (h_student - h_teacher) ** 2
                distances.append(squares.sum() if unit_length else squares.mean())
        if distances:
            summed = torch.stack(distances).sum()
            total = total + (summed / len(distances) if reduction == "sequence" else summed)
            count += 1 if reduction == "sequence" else len(distances)
    return total, count


def divergence_weighted_loss(
    student: Tensor, teacher: Tensor, mask: Tensor, unit_length: bool
) -> tuple[Tensor, int]:
    """Each response's distances, weighed by their own values and divided by the sum of these."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for b in range(len(mask)):
        one_by_one = []
        for t in range(mask.shape[1]):
            if mask[b, t]:
                only = torch.zeros_like(mask)
                only[b, t] = True
                one_by_one.append(
                    representation_loss(student, teacher, only, unit_length, "token")[0]
                )
        if one_by_one:
            far = [distance.item() for distance in one_by_one]
            total = total + sum(d * w for d, w in zip(one_by_one, far, strict=True)) / sum(far)
            count += 1
    return total, count
