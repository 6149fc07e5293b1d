"""Two models and the student's rollouts in; what they have in common out.

Letters: L_S and L_T layers of student and teacher.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from oprd.analysis.inspection.carry import Carry
from oprd.analysis.inspection.ends import Ends
from oprd.analysis.inspection.heads import compare_heads
from oprd.analysis.inspection.layers import layer_figures, mean_cosine
from oprd.analysis.inspection.rows import DrawnRows, Observer, Plan, read_once
from oprd.calibration.bridge.heads import Common
from oprd.calibration.bridge.settings import FitSettings
from oprd.calibration.rollouts import Rollout
from oprd.calibration.selection import Teach, batches
from oprd.calibration.similarity import MAX_ROWS
from oprd.core.capture import hidden_size, num_layers
from oprd.core.cka import debiased_cka
from oprd.core.layers import LayerPair, measures, pairs_text
from oprd.models.matching import pair_models, same_width
from oprd.models.probe import Probe, check_readable

# What is looked at beside the pairing that was asked for, where that is the default.
PROPORTIONAL, SIMILARITY = "proportional", "similarity"


def check_pair(student: Any, teacher: Any) -> tuple[Probe, Probe]:
    """Refuse a pair of which no student can be trained; what each model makes of a few tokens.

    Raises:
        ValueError: the teacher computes what the student does, or see `check_readable`.
    """
    ours, theirs = (
        check_readable(model, role, range(1, num_layers(model) + 1), heads=False, one_width=False)
        for model, role in ((student, "student"), (teacher, "teacher"))
    )
    if _equal(ours.logits, theirs.logits) and _equal(ours.states, theirs.states):
        raise ValueError(
            "the teacher computes what the student does, to the last bit: there is nothing to "
            "learn from it. Was another checkpoint meant, or an adapter?"
        )
    return ours, theirs


def measure_pair(
    student: Any,
    teacher: Any,
    seen: tuple[Probe, Probe],
    rollouts: Sequence[Rollout],
    settings: FitSettings,
    advance: Callable[[int], None] = lambda _: None,
    *,
    teach: Teach = None,
    common: Common = None,
) -> dict[str, Any]:
    """Figures of two models on the student's rollouts, as JSON can hold them.

    Both models read every rollout once.

    Args:
        student: a causal language model; its mode is left as it was.
        teacher: likewise, of any depth and width.
        seen: of `check_pair`.
        rollouts: what the student wrote.
        settings: layers, pairing, positions, batches and seed; no bridge is kept.
        advance: called with the number of rollouts that are read.
        teach: how the teacher reads a rollout in tokens of its own; None in the student's.
        common: then the tokens that both vocabularies have.

    Raises:
        ValueError: there is too little to go by, or a layer is the same in all rows.
        FloatingPointError: a row is not finite; the message names its prompt.
    """
    plan = Plan.of(rollouts, settings.positions, settings.position_k, settings.seed, teach)
    both, layers, pairing = (student, teacher), settings.layers, settings.layer_pairing
    # What is streamed needs pairs before any can be measured.
    pairs = pair_models(*both, layers, PROPORTIONAL if measures(pairing) else pairing)
    drawn = DrawnRows(plan.supervised, MAX_ROWS, settings.seed)
    ends = Ends(pairs) if same_width(*both) else None
    carry = Carry(*both, pairs, plan.supervised, common)
    observers: list[Observer] = [drawn, carry, *([ends] if ends else [])]
    read_once(*both, batches(plan.read, settings.batch_size, 0, 1), observers, advance)
    ours, theirs = drawn.student, drawn.teacher
    similarity = debiased_cka(
        [ours[layer] for layer in sorted(ours)], [theirs[layer] for layer in sorted(theirs)]
    ).cpu()
    names = [pairing, *([SIMILARITY] if pairing == PROPORTIONAL else [])]
    ways = {name: pair_models(*both, layers, name, lambda: similarity) for name in names}
    if len(set(ways.values())) == 1:
        ways = {pairing: ways[pairing]}
    rows = sum(selection.rows for selection in plan.supervised)
    return {
        "models": {
            role: {"layers": num_layers(model), "width": hidden_size(model)}
            for role, model in zip(("student", "teacher"), both, strict=True)
        },
        "rollouts": _rollout_figures(rollouts),
        "rows": {
            "read": sum(selection.rows for selection in plan.read),
            "supervised": rows,
            "drawn": min(rows, MAX_ROWS),
            "shared": plan.shared,
            "own": teach is not None,
        },
        "similarity": similarity.tolist(),
        "pairings": [_pairing(name, way, ours, theirs, similarity) for name, way in ways.items()],
        "same_states": ours.keys() == theirs.keys()
        and all(torch.equal(ours[layer], theirs[layer]) for layer in ours),
        "layers": layer_figures(ours, theirs, ways[pairing], similarity),
        "ends": ends.curve() if ends else None,
        "bridge": carry.report(),
        "heads": compare_heads(*both, seen),
    }


def _rollout_figures(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    lengths = [len(rollout.completion_ids) for rollout in rollouts]
    cut = sum(rollout.finish_reason == "length" for rollout in rollouts)
    return {
        "count": len(rollouts),
        "mean_tokens": sum(lengths) / len(lengths),
        "longest": max(lengths),
        "empty": sum(length == 0 for length in lengths) / len(lengths),
        "cut": cut / len(rollouts),
    }


def _pairing(
    name: str,
    pairs: Sequence[LayerPair],
    student: Mapping[int, Tensor],
    teacher: Mapping[int, Tensor],
    similarity: Tensor,
) -> dict[str, Any]:
    cka = [float(similarity[pair.student - 1, pair.teacher - 1]) for pair in pairs]
    cosines = [
        mean_cosine(student[pair.student].float(), teacher[pair.teacher].float()) for pair in pairs
    ]
    known = [cosine for cosine in cosines if cosine is not None]
    return {
        "name": name,
        "pairs": pairs_text(pairs),
        "cka": sum(cka) / len(cka),
        "cosine": sum(known) / len(known) if known else None,
    }


def _equal(ours: Tensor, theirs: Tensor) -> bool:
    return ours.shape == theirs.shape and torch.equal(ours, theirs.to(ours))
