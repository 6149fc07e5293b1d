"""What a bridge was fitted on, and whether that is what it is used with."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from oprd.core.bridge import Bridge
from oprd.core.bridge.space import BridgeSpace
from oprd.core.layers import LayerPair, pairs_text

REFIT = "fit one for this run with `oprd bridge fit`"


def differing(
    fitted: Mapping[str, Any], wanted: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is wanted otherwise than it was fitted, as both have it; of what is known of the fit."""
    names = [name for name in wanted if fitted.get(name) not in (None, wanted[name])]
    return {name: fitted[name] for name in names}, {name: wanted[name] for name in names}


def as_text(settings: Mapping[str, Any]) -> str:
    """Settings and their values, for messages."""
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())


def check_bridge(
    bridge: Bridge,
    widths: tuple[int, int],
    pairs: Sequence[LayerPair],
    models: Mapping[str, Mapping[str, Any]],
    positions: Mapping[str, Any],
    rollouts: Mapping[str, Any],
    *,
    own: bool = False,
    may_fit: bool = True,
) -> list[str]:
    """Refuse a bridge that does not belong to a run.

    Args:
        bridge: the bridge.
        widths: of the student's and the teacher's states.
        pairs: the layer pairs that the run compares.
        models: `model_identity` of the run's `student` and `teacher`.
        positions: of `supervised_positions`.
        rollouts: of `drawn_rollouts`.
        own: whether the run's teacher reads tokens of its own.
        may_fit: whether the run may fit a bridge itself, to advise that.

    Returns:
        What differs without making the bridge useless, as sentences for a person.

    Raises:
        ValueError: the bridge is of other widths, layers or models, or of a teacher that read
            other tokens.
    """
    refit = f"{REFIT}, or set bridge='fit'" if may_fit else REFIT
    if (bridge.student_dim, bridge.teacher_dim) != widths:
        raise ValueError(
            f"the bridge takes a student of width {bridge.student_dim} and a teacher of "
            f"{bridge.teacher_dim}, the run has {widths[0]} and {widths[1]}: {refit}."
        )
    missing = sorted(set(pairs) - set(bridge.pairs))
    if missing:
        listed = ", ".join(f"{pair.student} with {pair.teacher}" for pair in missing)
        raise ValueError(
            f"the bridge was not fitted on the layer pairs {listed} (student with teacher), but "
            f"on the student's layers {[pair.student for pair in bridge.pairs]}; "
            f"{_other_partners(bridge, pairs, models)}{refit}."
        )
    if bridge.provenance is None:
        # Loading it has warned.
        return []
    reads = bridge.provenance.get("teacher_tokenizer", "student")
    if own != (reads == "own"):
        raise ValueError(
            f"the bridge was fitted with teacher_tokenizer={reads!r}, and the run has "
            f"{'own' if own else 'student'!r}: {refit}."
        )
    reports = []
    for name, found in models.items():
        fitted = bridge.provenance.get(name)
        if not isinstance(fitted, Mapping):
            reports.append(
                f"the bridge does not say which {name} it was fitted on, so that it cannot be "
                f"checked against this one; where they may differ, {refit}."
            )
        elif not _same_model(fitted, found):
            raise ValueError(
                f"the bridge was fitted on another {name}: {_label(fitted)}, and this one is "
                f"{_label(found)}; {refit}."
            )
    fitted = bridge.provenance.get("positions")
    if fitted is not None and fitted != positions:
        reports.append(
            f"the bridge was fitted on {_positions_label(fitted)}, the run supervises "
            f"{_positions_label(positions)}."
        )
    drawn = bridge.provenance.get("rollouts")
    if isinstance(drawn, Mapping):
        of_fit, of_run = differing(drawn, rollouts)
        if of_run:
            reports.append(
                f"the bridge was fitted on rollouts drawn with {as_text(of_fit)}, the run draws "
                f"its own with {as_text(of_run)}; where that matters, {refit}."
            )
    return reports


def _other_partners(
    bridge: Bridge, pairs: Sequence[LayerPair], models: Mapping[str, Mapping[str, Any]]
) -> str:
    """The way out where a bridge of these models has the run's layers, with other partners."""
    fitted = bridge.provenance or {}
    same = all(_same_model(fitted.get(name) or {}, found) for name, found in models.items())
    own = {pair.student: pair for pair in bridge.pairs}
    if not same or not all(pair.student in own for pair in pairs):
        return ""
    return f"set layer_pairing='{pairs_text([own[pair.student] for pair in pairs])}', or "


def _same_model(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """By weights; by the commit of one repository where a model was loaded otherwise quantized."""
    if first.get("weights") is not None and first.get("weights") == second.get("weights"):
        return True
    return first.get("revision") is not None and all(
        first.get(key) == second.get(key) for key in ("model", "revision")
    )


def _label(model: Mapping[str, Any]) -> str:
    return f"{model.get('model')!r} (weights {model.get('weights')})"


def _positions_label(positions: Any) -> str:
    if not isinstance(positions, Mapping):
        return repr(positions)
    count = positions.get("position_k")
    return f"positions={positions.get('positions')}" + (f" of {count}" if count else "")


def bridge_facts(spaces: Mapping[str, BridgeSpace]) -> dict[str, Any]:
    """What a run's record says of its bridges: what they are, and hashes of their numbers."""
    bridges = {name: space.bridge for name, space in spaces.items()}
    described = {
        name: {
            "rank": bridge.rank,
            "ranks": list(bridge.ranks),
            "basis": bridge.basis,
            "heads_metric": bridge.heads_metric,
            "rows": bridge.rows,
            "cosine": [fit.cosine for fit in bridge.statistics.values()],
            "provenance": bridge.provenance,
        }
        for name, bridge in bridges.items()
    }
    return {"bridges": described, "bridge_hashes": [_hash(b) for b in bridges.values()]}


def _hash(bridge: Bridge) -> str:
    digest = hashlib.sha256()
    for _, buffer in sorted(bridge.named_buffers()):
        digest.update(buffer.to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]
