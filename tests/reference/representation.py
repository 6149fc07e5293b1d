"""Eq. 6 from its definition: loops over sequences and positions, float64, ordinary autograd."""

import torch
from torch import Tensor


def representation_loss(
    student: Tensor, teacher: Tensor, mask: Tensor, normalize: bool, reduction: str
) -> tuple[Tensor, int]:
    total, count = torch.zeros((), dtype=torch.float64), 0
    for b in range(len(mask)):
        distances = []
        for t in range(mask.shape[1]):
            if mask[b, t]:
                h_student, h_teacher = student[b, t].double(), teacher[b, t].double().detach()
                if normalize:
                    h_student = h_student / h_student.norm()
                    h_teacher = h_teacher / h_teacher.norm()
                distances.append(((h_student - h_teacher) ** 2).mean())
        if distances:
            summed = torch.stack(distances).sum()
            total = total + (summed / len(distances) if reduction == "sequence" else summed)
            count += 1 if reduction == "sequence" else len(distances)
    return total, count
