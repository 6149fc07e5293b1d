"""What a micro-batch shows, by the names of `StepStatistics`, as sums over positions.

Letters: B sequences, K response tokens, M response rows, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from oprd.core.diagnostics import output_diagnostics
from oprd.core.drift import drift
from oprd.core.head import LMHead
from oprd.core.representation import LayersLoss

# The paper's diagnostic compares the sixteen likeliest tokens.
OVERLAP = 16


class OutputPair(NamedTuple):
    """What all output-space losses and the diagnostics are called with.

    Attributes:
        student: [M, D_student], the rows that predict response tokens.
        teacher: [M, D_teacher].
        student_head: see `oprd.core.head.LMHead`.
        teacher_head: over the same vocabulary.
        mask: [B, K] bool, the M response tokens.
        token_ids: [B, K].
    """

    student: Tensor
    teacher: Tensor
    student_head: LMHead
    teacher_head: LMHead
    mask: Tensor
    token_ids: Tensor


def layer_sums(result: LayersLoss) -> dict[str, Tensor]:
    """Cosines and norms by layer."""
    return {
        "cosine": result.cosine,
        "student_norm": result.student_norm,
        "teacher_norm": result.teacher_norm,
    }


@torch.no_grad()
def last_sums(pair: OutputPair) -> dict[str, Tensor]:
    """Norms of both models' last states, not finite where a state is not."""
    norms = [torch.linalg.vector_norm(rows.float()) for rows in (pair.student, pair.teacher)]
    return {"last_norm": torch.stack(norms)}


@torch.no_grad()
def diagnostic_sums(pair: OutputPair, temperature: float) -> dict[str, Tensor]:
    """The paper's diagnostics, and the cosine of the last states where widths agree."""
    overlap = min(OVERLAP, pair.student_head.vocab_size)
    sums = output_diagnostics(*pair, k=overlap, temperature=temperature)
    found = {f"diagnostics/{name}": value for name, value in sums._asdict().items()}
    found["diagnostics/top16_overlap"] = found.pop("diagnostics/topk_overlap")
    if pair.student.shape == pair.teacher.shape:
        cosines = torch.cosine_similarity(pair.student.float(), pair.teacher.float())
        found["diagnostics/rep_cosine"] = cosines.sum()
    return found


def drift_sums(written: Tensor, now: Tensor) -> dict[str, Tensor]:
    """The drift, from the log-probabilities [M] when the rollouts were written and now."""
    total, count = drift(written, now)
    return {"drift/total": total, "drift/count": count}
