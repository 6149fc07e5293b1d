"""One update of every objective on the same rollouts: forward, loss, backward, no optimizer step.

Ours run what the trainer runs for a micro-batch, under settings of its own configuration.

Letters: B sequences, K response tokens, T all tokens, V vocabulary; of a bridge P layer pairs,
R rank, S student width, H teacher width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from oprd.analysis.setup import Scene, Setup
from oprd.core.bridge import Bridge
from oprd.core.bridge.bases import HEADS
from oprd.core.bridge.bridge import PairFit
from oprd.core.bridge.heads import METRICS
from oprd.core.bridge.space import BridgeSpace
from oprd.core.capture import hidden_size
from oprd.core.layers import LayerPair
from oprd.core.objective import OUTPUT_LOSSES, STATE_LOSSES
from oprd.core.reduction import Reduction
from oprd.models.batch import MicroBatch
from oprd.models.heads import lm_head
from oprd.models.matching import pair_models
from oprd.models.reader import Reader
from oprd.models.reading import base_forward
from oprd.models.teacher import Teacher
from oprd.settings.run import OPRDConfig
from oprd.training.batch import BatchCounts, count, select
from oprd.training.update import Update

Family = Literal["floor", "representation", "output", "naive", "trl"]
Run = Callable[[], None]
TOP_K = 16
BRIDGE, BRIDGE_RANK = "random", 8


@dataclass(frozen=True)
class Objective:
    """Something that a student can be trained on.

    Attributes:
        label: what tables call it; takes the setup's `layers` and `window`.
        family: what it belongs with in a picture.
        prepare: makes an update of a scene, one forward and backward whose gradients add up in
            the student.
        same: what student and teacher must have alike, if anything.
    """

    label: str
    family: Family
    prepare: Callable[[Scene], Run]
    same: Literal["width", "vocabulary"] | None = None


def _floor(scene: Scene) -> Run:
    """The least that any update must do: the loss is trivial."""

    def run() -> None:
        with torch.no_grad():
            base_forward(scene.teacher, scene.input_ids, scene.attention_mask)
        last = base_forward(scene.student, scene.input_ids, scene.attention_mask).last_hidden_state
        cast(Tensor, last).sum().backward()

    return run


def _trained(
    options: Callable[[Setup], dict[str, Any]], diagnose: bool = False
) -> Callable[[Scene], Run]:
    """An objective of `OPRDConfig`, given by what differs from supervising all positions."""

    def prepare(scene: Scene) -> Run:
        args = OPRDConfig(
            output_dir="unused",
            bf16=False,
            use_cpu=scene.setup.device == "cpu",
            report_to=[],
            **{"positions": "all", **options(scene.setup)},
        )
        student = scene.student
        pairs = pair_models(student, scene.teacher, args.layer_spec)
        teacher = Teacher(Reader(scene.teacher), pairs)
        if args.bridge is not None:
            widths = hidden_size(student), hidden_size(scene.teacher)
            bridge = _random_bridge(pairs, *widths, heads=args.fits_heads)
            teacher.spaces = {
                args.bridge: BridgeSpace(bridge, pairs, student.device, student.dtype)
            }
        # Random tokens are as good as any: what the longer head has more of is left out.
        update = Update.of(args, student, scene.teacher, same_meaning=True, diagnoses=diagnose)
        needs = update.needs(diagnose)
        batch = _micro_batch(scene, args)
        return lambda: update(student, batch, teacher, needs).objective.backward()

    return prepare


def _random_bridge(
    pairs: Sequence[LayerPair], student_dim: int, teacher_dim: int, *, heads: bool
) -> Bridge:
    """A bridge [P, R, S] and [P, R, H] of random numbers: what it costs does not depend on them.

    That of LM heads has all directions of the student's.
    """
    generator = torch.Generator().manual_seed(0)
    rank = student_dim if heads else min(BRIDGE_RANK, student_dim, teacher_dim)
    components = student_dim if heads else teacher_dim

    def noise(*shape: int) -> Tensor:
        return torch.randn(len(pairs), *shape, generator=generator)

    unknown = PairFit(torch.zeros(components), torch.zeros(components), 0.0, 0.0, 0.0)
    return Bridge(
        pairs,
        student_projection=noise(rank, student_dim),
        student_mean=noise(student_dim),
        teacher_projection=noise(rank, teacher_dim),
        teacher_mean=noise(teacher_dim),
        statistics=[unknown] * len(pairs),
        rows=0,
        basis=HEADS if heads else "pca",
        heads_metric=METRICS[0] if heads else None,
    )


def _micro_batch(scene: Scene, args: OPRDConfig) -> MicroBatch:
    prompt = scene.setup.prompt_length
    rollouts: dict[str, Any] = {
        "prompt_ids": scene.input_ids[:, :prompt],
        "completion_ids": scene.input_ids[:, prompt:],
        "prompt_mask": scene.attention_mask[:, :prompt],
        "completion_mask": scene.attention_mask[:, prompt:],
    }
    select(rollouts, args)
    counts = BatchCounts(*count(rollouts, cast(Reduction, args.reduction)))
    rollouts |= {"supervised_count": counts.positions, "response_count": counts.responses}
    return MicroBatch.of(rollouts)


def _output(**options: Any) -> Callable[[Scene], Run]:
    """An output-space loss of ours alone."""
    return _trained(lambda setup: {"representation_weight": 0.0, **options})


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


def _window(setup: Setup) -> dict[str, Any]:
    return {"positions": "last_k", "position_k": setup.window_length}


FLOOR, NAIVE_TOP = "floor", "naive_topk"

_OPRD: dict[str, Objective] = {
    FLOOR: Objective("floor", "floor", _floor),
    "oprd": Objective("OPRD", "representation", _trained(lambda setup: {}), "width"),
    "oprd_layers": Objective(
        "OPRD, layers {layers}",
        "representation",
        _trained(lambda setup: {"layers": setup.layers}),
        "width",
    ),
    "oprd_window": Objective("OPRD, last {window}", "representation", _trained(_window), "width"),
    "oprd_prefix": Objective(
        "OPRD, last {window}, constant prefix",
        "representation",
        _trained(lambda setup: {**_window(setup), "prefix_gradients": False}),
        "width",
    ),
    "oprd_bridge": Objective(
        f"OPRD through a bridge of rank {BRIDGE_RANK}",
        "representation",
        _trained(lambda setup: {"bridge": BRIDGE}),
    ),
    "oprd_heads": Objective(
        "OPRD through both LM heads",
        "representation",
        _trained(lambda setup: {"bridge": "fit", "bridge_basis": HEADS, "layers": "last"}),
    ),
    "oprd_diagnostics": Objective(
        "OPRD + diagnostics", "representation", _trained(lambda setup: {}, diagnose=True), "width"
    ),
    "oprd_topk": Objective(
        "OPRD + top-16", "output", _trained(lambda setup: {"output_loss": "topk"}), "width"
    ),
}
_OTHERS: dict[str, Objective] = {
    "topk_truncated": Objective(
        "top-16, truncated",
        "output",
        _output(output_loss="topk", output_loss_kwargs={"renormalize": False}),
    ),
    "naive_sampled": Objective(
        "naive sampled token", "naive", _naive(_naive_sampled), "vocabulary"
    ),
    NAIVE_TOP: Objective("naive top-16", "naive", _naive(_naive_topk), "vocabulary"),
    "naive_reverse_kl": Objective(
        "naive reverse KL", "naive", _naive(_naive_reverse_kl), "vocabulary"
    ),
    "trl": Objective("TRL's reverse KL", "trl", _trl, "vocabulary"),
}
# What tables call losses otherwise than settings do.
_LABELS = {
    "sampled": "sampled token",
    "topk": "top-16",
    "reverse_kl": "reverse KL",
    "forward_kl": "forward KL",
    "jsd": "JSD",
}


def all_objectives() -> dict[str, Objective]:
    """All that can be measured, by name: OPRD's settings, every loss of the tables, and others'."""
    states = {
        name: Objective(
            name,
            "representation",
            _trained(lambda setup, name=name: {"state_loss": name}),
            "width" if kind.equal_widths else None,
        )
        for name, kind in STATE_LOSSES.items()
        if name != "mse"
    }
    outputs = {
        name: Objective(_LABELS.get(name, name), "output", _output(output_loss=name))
        for name in OUTPUT_LOSSES
    }
    return {**_OPRD, **states, **outputs, **_OTHERS}
