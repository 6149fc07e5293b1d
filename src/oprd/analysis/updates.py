"""One update of every objective on the same rollouts: forward, loss, backward, no optimizer step.

Letters: B sequences, K response tokens, T all tokens, V vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from oprd.analysis.setup import Scene
from oprd.core.capture import capture_states
from oprd.core.divergence import full_kl_loss, jsd_loss, sampled_token_loss, topk_loss
from oprd.core.reduction import LossSum
from oprd.core.representation import LayerComparison
from oprd.training.forward import base_forward, predicting_rows
from oprd.training.matching import pair_models

Family = Literal["floor", "representation", "output", "naive", "trl"]
TOP_K = 16


@dataclass(frozen=True)
class Objective:
    """Something an update can train on.

    Attributes:
        label: what tables call it; takes the setup's `layers` and `window`.
        family: what it belongs with in a picture.
        update: one forward and backward on a scene; gradients add up in the student.
    """

    label: str
    family: Family
    update: Callable[[Scene], None]


def _floor(scene: Scene) -> None:
    with torch.no_grad():
        base_forward(scene.teacher, scene.input_ids, scene.attention_mask)
    states = base_forward(scene.student, scene.input_ids, scene.attention_mask)
    states.last_hidden_state.sum().backward()


def _representation(scene: Scene, layers: str = "all", window: int | None = None) -> None:
    pairs = pair_models(scene.student, scene.teacher, layers)
    positions = scene.positions(window)
    rows = predicting_rows(positions, scene.setup.prompt_length)
    teacher_layers = sorted({pair.teacher for pair in pairs})
    with torch.no_grad(), capture_states(scene.teacher, teacher_layers, rows) as teacher_states:
        base_forward(scene.teacher, scene.input_ids, scene.attention_mask)
    comparison = LayerComparison(teacher_states, pairs, positions)
    with capture_states(scene.student, [pair.student for pair in pairs], rows, comparison):
        base_forward(scene.student, scene.input_ids, scene.attention_mask)
    _backward(comparison.result().loss)


def _output(loss: Callable[..., LossSum], sampled: bool = False) -> Callable[[Scene], None]:
    def update(scene: Scene) -> None:
        teacher, student = _last_states(scene)
        heads = scene.student.get_output_embeddings(), scene.teacher.get_output_embeddings()
        ids = (scene.response_ids,) if sampled else ()
        _backward(loss(student, teacher, heads[0].weight, heads[1].weight, scene.positions(), *ids))

    return update


def _last_states(scene: Scene) -> tuple[Tensor, Tensor]:
    """The teacher's and the student's last states [B, K, D] that predict response tokens."""
    rows = slice(scene.setup.prompt_length - 1, -1)
    with torch.no_grad():
        teacher = base_forward(scene.teacher, scene.input_ids, scene.attention_mask)
    student = base_forward(scene.student, scene.input_ids, scene.attention_mask)
    return teacher.last_hidden_state[:, rows], student.last_hidden_state[:, rows]


def _backward(loss: LossSum) -> None:
    (loss.total / loss.count).backward()


def _naive(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Scene], None]:
    """An objective as it is often written: full logits of all response tokens on both sides."""

    def log_probabilities(model: torch.nn.Module, scene: Scene) -> Tensor:
        output = model(
            input_ids=scene.input_ids,
            attention_mask=scene.attention_mask,
            use_cache=False,
            logits_to_keep=scene.setup.response_length + 1,
        )
        return output.logits[:, :-1].float().log_softmax(dim=-1)

    def update(scene: Scene) -> None:
        with torch.no_grad():
            log_q = log_probabilities(scene.teacher, scene)
        value = loss(log_probabilities(scene.student, scene), log_q, scene.response_ids)
        del log_q
        value.mean().backward()

    return update


def _naive_sampled(log_p: Tensor, log_q: Tensor, ids: Tensor) -> Tensor:
    at, target = (log.gather(-1, ids[..., None]) for log in (log_p, log_q))
    return (at - target).detach() * at


def _naive_topk(log_p: Tensor, log_q: Tensor, ids: Tensor) -> Tensor:
    at, ids = log_p.topk(TOP_K, dim=-1)
    return (at.exp() * (at - log_q.gather(-1, ids))).sum(dim=-1)


def _naive_reverse_kl(log_p: Tensor, log_q: Tensor, ids: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def _trl(scene: Scene) -> None:
    # Imported here: it takes longer than measuring another objective in a process of its own.
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    teacher, student = _last_states(scene)
    heads = scene.student.get_output_embeddings(), scene.teacher.get_output_embeddings()
    loss, *_ = _chunked_divergence_loss(
        student, teacher, heads[0].weight, heads[1].weight, scene.positions(), beta=1.0
    )
    loss.backward()


FLOOR, NAIVE_TOP = "floor", "naive_topk"

OBJECTIVES: Mapping[str, Objective] = {
    FLOOR: Objective("floor", "floor", _floor),
    "oprd": Objective("OPRD", "representation", _representation),
    "oprd_layers": Objective(
        "OPRD, layers {layers}",
        "representation",
        lambda scene: _representation(scene, layers=scene.setup.layers),
    ),
    "oprd_window": Objective(
        "OPRD, last {window}",
        "representation",
        lambda scene: _representation(scene, window=scene.setup.window_length),
    ),
    "sampled": Objective("sampled token", "output", _output(sampled_token_loss, sampled=True)),
    "topk": Objective("top-16", "output", _output(topk_loss)),
    "topk_truncated": Objective(
        "top-16, truncated", "output", _output(partial(topk_loss, renormalize=False))
    ),
    "reverse_kl": Objective("reverse KL", "output", _output(full_kl_loss)),
    "forward_kl": Objective(
        "forward KL", "output", _output(partial(full_kl_loss, direction="forward"))
    ),
    "jsd": Objective("JSD", "output", _output(jsd_loss)),
    "naive_sampled": Objective("naive sampled token", "naive", _naive(_naive_sampled)),
    NAIVE_TOP: Objective("naive top-16", "naive", _naive(_naive_topk)),
    "naive_reverse_kl": Objective("naive reverse KL", "naive", _naive(_naive_reverse_kl)),
    "trl": Objective("TRL's reverse KL", "trl", _trl),
}
