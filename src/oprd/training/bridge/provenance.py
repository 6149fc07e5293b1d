"""What a bridge was fitted on, and whether that is what it is used with."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from oprd.core.bridge import Bridge
from oprd.core.layers import LayerPair
from oprd.evaluation.models import identify

REFIT = "fit one for this run with `oprd bridge fit`, or set bridge='fit'"


def model_identity(model: Any, tokenizer: PreTrainedTokenizerBase | None) -> dict[str, str | None]:
    """`model`, `revision`, `weights` and `tokenizer` (hashes) of a loaded model."""
    known = None if tokenizer is None else tokenizer_hash(tokenizer)
    return {**identify(model), "tokenizer": known}


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of which id is which token."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]))
    return hashlib.sha256(vocabulary.encode()).hexdigest()[:16]


def supervised_positions(positions: str, position_k: int) -> dict[str, Any]:
    """Which response tokens are supervised, as a bridge's provenance names them."""
    counted = positions in ("first_k", "last_k")
    return {"positions": positions, "position_k": position_k if counted else None}


def check_bridge(
    bridge: Bridge,
    widths: tuple[int, int],
    pairs: Sequence[LayerPair],
    models: Mapping[str, Mapping[str, Any]],
    positions: Mapping[str, Any],
) -> list[str]:
    """Refuse a bridge that does not belong to a run.

    Args:
        bridge: the bridge.
        widths: of the student's and the teacher's states.
        pairs: the layer pairs that the run compares.
        models: `model_identity` of the run's `student` and `teacher`.
        positions: of `supervised_positions`.

    Returns:
        What differs without making the bridge useless, as sentences for a person.

    Raises:
        ValueError: the bridge is of other widths, layers or models.
    """
    if (bridge.student_dim, bridge.teacher_dim) != widths:
        raise ValueError(
            f"the bridge takes a student of width {bridge.student_dim} and a teacher of "
            f"{bridge.teacher_dim}, the run has {widths[0]} and {widths[1]}: {REFIT}."
        )
    missing = sorted(set(pairs) - set(bridge.pairs))
    if missing:
        listed = ", ".join(f"{pair.student} with {pair.teacher}" for pair in missing)
        raise ValueError(
            f"the bridge was not fitted on the layer pairs {listed} (student with teacher), but "
            f"on the student's layers {[pair.student for pair in bridge.pairs]}; {REFIT}."
        )
    if bridge.provenance is None:
        # Loading it has warned.
        return []
    for name, found in models.items():
        fitted = bridge.provenance.get(name)
        if isinstance(fitted, Mapping) and not _same_model(fitted, found):
            raise ValueError(
                f"the bridge was fitted on another {name}: {_label(fitted)}, and this one is "
                f"{_label(found)}; {REFIT}."
            )
    fitted = bridge.provenance.get("positions")
    if fitted is None or fitted == positions:
        return []
    return [
        f"the bridge was fitted on {_positions_label(fitted)}, the run supervises "
        f"{_positions_label(positions)}."
    ]


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
