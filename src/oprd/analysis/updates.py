"""One update of every objective on the same rollouts: forward, loss, backward, no optimizer step.

Ours run what the trainer runs for a micro-batch, under settings of its own configuration, but for
its autocast: both models compute in the precision that their weights have. On an accelerator a run
trains float32 weights under autocast to bfloat16 by default, which no dtype here measures.

Letters: B sequences, K response tokens, T all tokens, V vocabulary; of a bridge P layer pairs,
R rank, S student width, H teacher width.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from oprd.analysis.objective import FLOOR, Objective, Run
from oprd.analysis.others import OTHERS
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
from oprd.models.matching import pair_models
from oprd.models.reader import Reader
from oprd.models.reading import base_forward
from oprd.models.reference import Reference
from oprd.models.teacher import Teacher
from oprd.models.views import add_prompts
from oprd.rollouts.counts import BatchCounts, count, select
from oprd.settings.run import OPRDConfig
from oprd.training.update import Update

BRIDGE, BRIDGE_RANK = "random", 8
# What an update costs at least where the teacher reads more, or another model beside it.
FLOOR_PROMPT, FLOOR_REFERENCE = "floor_prompt", "floor_reference"


def _floor(*, own_prompt: bool = False, frozen: int = 1) -> Callable[[Scene], Run]:
    """The least that any update must do: the loss is trivial.

    Args:
        own_prompt: whether the teacher reads its own.
        frozen: forward passes without gradient, of the teacher and of what it is compared with.
    """

    def prepare(scene: Scene) -> Run:
        ids = scene.teacher_ids if own_prompt else scene.input_ids

        def run() -> None:
            with torch.no_grad():
                for _ in range(frozen):
                    base_forward(scene.teacher, ids, torch.ones_like(ids))
            states = base_forward(scene.student, scene.input_ids, scene.attention_mask)
            cast(Tensor, states.last_hidden_state).sum().backward()

        return run

    return prepare


def _trained(
    options: Callable[[Setup], dict[str, Any]], diagnose: bool = False, own_prompt: bool = False
) -> Callable[[Scene], Run]:
    """An objective of `OPRDConfig`, given by what differs from supervising all positions."""

    def prepare(scene: Scene) -> Run:
        args = OPRDConfig(
            output_dir="unused",
            # Nothing here enters an autocast.
            bf16=False,
            use_cpu=scene.setup.device == "cpu",
            report_to=[],
            **{"positions": "all", **options(scene.setup)},
        )
        student = scene.student
        pairs = pair_models(student, scene.teacher, args.layer_spec)
        teacher = Teacher(Reader(scene.teacher), pairs)
        if args.extrapolates:
            # A model that reads takes as long, whichever it is.
            teacher.reference = Reference(Reader(scene.teacher), args.extrapolation)
        if args.bridge is not None:
            widths = hidden_size(student), hidden_size(scene.teacher)
            bridge = _random_bridge(pairs, *widths, heads=args.fits_heads)
            teacher.spaces = {
                args.bridge: BridgeSpace(bridge, pairs, student.device, student.dtype)
            }
        # Random tokens are as good as any: what the longer head has more of is left out.
        update = Update.of(args, student, scene.teacher, same_meaning=True, diagnoses=diagnose)
        needs = update.needs(diagnose)
        batch = _micro_batch(scene, args, own_prompt=own_prompt)
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


def _micro_batch(scene: Scene, args: OPRDConfig, *, own_prompt: bool) -> MicroBatch:
    prompt = scene.setup.prompt_length
    rollouts: dict[str, Any] = {
        "prompt_ids": scene.input_ids[:, :prompt],
        "completion_ids": scene.input_ids[:, prompt:],
        "prompt_mask": scene.attention_mask[:, :prompt],
        "completion_mask": scene.attention_mask[:, prompt:],
    }
    if own_prompt:
        own = scene.teacher_ids[:, : scene.setup.teacher_prompt_length].tolist()
        add_prompts(rollouts, [[ids] for ids in own], pad=0, count=1)
    select(rollouts, args)
    counts = BatchCounts(*count(rollouts, cast(Reduction, args.reduction)))
    rollouts |= {"supervised_count": counts.positions, "response_count": counts.responses}
    return MicroBatch.of(rollouts)


def _output(**options: Any) -> Callable[[Scene], Run]:
    """An output-space loss of ours alone."""
    return _trained(lambda setup: {"representation_weight": 0.0, **options})


def _window(setup: Setup) -> dict[str, Any]:
    return {"positions": "last_k", "position_k": setup.window_length}


_OPRD: dict[str, Objective] = {
    FLOOR: Objective("floor", "floor", _floor()),
    FLOOR_PROMPT: Objective(
        "floor, teacher's prompt of {teacher_prompt}",
        "floor",
        _floor(own_prompt=True),
        floor=FLOOR_PROMPT,
        own_prompt=True,
    ),
    FLOOR_REFERENCE: Objective(
        "floor, with a reference", "floor", _floor(frozen=2), floor=FLOOR_REFERENCE
    ),
    "oprd": Objective("OPRD", "representation", _trained(lambda setup: {}), "width"),
    "oprd_prompt": Objective(
        "OPRD, teacher's prompt of {teacher_prompt}",
        "representation",
        _trained(lambda setup: {}, own_prompt=True),
        "width",
        floor=FLOOR_PROMPT,
        own_prompt=True,
    ),
    "oprd_reference": Objective(
        "OPRD past the teacher",
        "representation",
        _trained(lambda setup: {"extrapolation": 1.25}),
        "width",
        floor=FLOOR_REFERENCE,
    ),
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
_MORE = {
    "topk_truncated": Objective(
        "top-16, truncated",
        "output",
        _output(output_loss="topk", output_loss_kwargs={"renormalize": False}),
    ),
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
    return {**_OPRD, **states, **outputs, **_MORE, **OTHERS}
