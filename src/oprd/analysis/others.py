"""Objectives that are not ours: as the paper runs them, and TRL's.

Letters: B sequences, K response tokens, V vocabulary.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from oprd.analysis.objective import Objective, Run
from oprd.analysis.setup import Scene
from oprd.models.heads import lm_head
from oprd.models.reading import base_forward

TOP_K = 16
NAIVE_TOP = "naive_topk"


def _naive(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Scene], Run]:
    """An objective as the paper runs it: each model's forward forms the logits of all tokens."""

    def log_probabilities(model: nn.Module, scene: Scene) -> Tensor:
        ids, mask = scene.input_ids, scene.attention_mask
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits[:, scene.predicting].float().log_softmax(dim=-1)

    def prepare(scene: Scene) -> Run:
        def value() -> Tensor:
            with torch.no_grad():
                log_q = log_probabilities(scene.teacher, scene)
            log_p = log_probabilities(scene.student, scene)
            return loss(log_p, log_q, scene.response_ids).mean()

        # What the value does not need again is gone before the backward pass.
        return lambda: value().backward()

    return prepare


def _naive_sampled(log_p: Tensor, log_q: Tensor, ids: Tensor) -> Tensor:
    at, target = (log.gather(-1, ids[..., None]) for log in (log_p, log_q))
    return ((at - target).detach() * at).squeeze(-1)


def _naive_topk(log_p: Tensor, log_q: Tensor, ids: Tensor) -> Tensor:
    at, ids = log_p.topk(TOP_K, dim=-1)
    return (at.exp() * (at - log_q.gather(-1, ids))).sum(dim=-1)


def _naive_reverse_kl(log_p: Tensor, log_q: Tensor, ids: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def _trl(scene: Scene) -> Run:
    """The loss of TRL's `DistillationTrainer`, which works on tiles of the vocabulary."""
    # Imported here: it takes longer than measuring another objective in a process of its own.
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    mask = torch.ones_like(scene.response_ids)
    student, teacher = lm_head(scene.student), lm_head(scene.teacher)

    def run() -> None:
        with torch.no_grad():
            frozen = base_forward(scene.teacher, scene.input_ids, scene.attention_mask)
        states = base_forward(scene.student, scene.input_ids, scene.attention_mask)
        loss, *_ = _chunked_divergence_loss(
            cast(Tensor, states.last_hidden_state)[:, scene.predicting],
            cast(Tensor, frozen.last_hidden_state)[:, scene.predicting],
            student.weight,
            teacher.weight,
            mask,
            beta=1.0,
            student_lm_head_bias=student.bias,
            teacher_lm_head_bias=teacher.bias,
            student_logit_scale=student.scale,
            teacher_logit_scale=teacher.scale,
            student_final_logit_softcapping=student.softcap,
            teacher_final_logit_softcapping=teacher.softcap,
        )
        loss.backward()

    return run


OTHERS: dict[str, Objective] = {
    "naive_sampled": Objective(
        "naive sampled token", "naive", _naive(_naive_sampled), "vocabulary"
    ),
    NAIVE_TOP: Objective("naive top-16", "naive", _naive(_naive_topk), "vocabulary"),
    "naive_reverse_kl": Objective(
        "naive reverse KL", "naive", _naive(_naive_reverse_kl), "vocabulary"
    ),
    "trl": Objective("TRL's reverse KL", "trl", _trl, "vocabulary"),
}
