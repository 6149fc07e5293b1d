"""What paired layers have in common, from rows of both models.

    effective rank = exp(−Σ_i p_i log p_i),   p_i = λ_i / Σ_j λ_j,

with λ the eigenvalues of the rows' covariance (Roy & Vetterli 2007): how many directions a layer's
states spread over.

Letters: N rows, D width, L_S and L_T layers of student and teacher.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from oprd.core.layers import LayerPair

Rows = Mapping[int, Tensor]


def layer_figures(
    student: Rows, teacher: Rows, pairs: Sequence[LayerPair], similarity: Tensor
) -> list[dict[str, Any]]:
    """Figures of each pair, as JSON can hold them.

    Args:
        student: rows [N, D] by layer.
        teacher: likewise, row n at the position of the student's row n.
        pairs: the layers that meet.
        similarity: [L_S, L_T] CKA of every layer with every layer.
    """
    ranks = {layer: effective_rank(teacher[layer]) for layer in {pair.teacher for pair in pairs}}
    figures = []
    for pair in pairs:
        ours, theirs = student[pair.student].float(), teacher[pair.teacher].float()
        figures.append(
            {
                "student": pair.student,
                "teacher": pair.teacher,
                "cosine": mean_cosine(ours, theirs),
                "cka": float(similarity[pair.student - 1, pair.teacher - 1]),
                "size": {"student": mean_size(ours), "teacher": mean_size(theirs)},
                "effective_rank": {
                    "student": effective_rank(ours),
                    "teacher": ranks[pair.teacher],
                },
            }
        )
    return figures


def mean_cosine(student: Tensor, teacher: Tensor) -> float | None:
    """Mean over rows [N, D] of their cosines; None where widths differ."""
    if student.shape != teacher.shape:
        return None
    return float(functional.cosine_similarity(student, teacher.to(student.device), dim=1).mean())


def mean_size(rows: Tensor) -> float:
    """The root of the mean square of rows [N, D], which does not grow with the width."""
    return float(rows.double().square().mean().sqrt())


def effective_rank(rows: Tensor) -> float:
    """The effective rank of rows [N, D]; 0 where they are all the same."""
    centred = rows.double() - rows.double().mean(dim=0)
    # Both products have the same eigenvalues that are not zero.
    small = centred.T @ centred if centred.shape[0] > centred.shape[1] else centred @ centred.T
    values = torch.linalg.eigvalsh(small).clamp(min=0)
    if not values.any():
        return 0.0
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())
