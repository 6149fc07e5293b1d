"""What identifies models, rollouts and prompts in the record of a calibration."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from oprd.models.load import identify

# What shapes the distribution that rollouts are drawn from, at the values that leave it as it is.
UNSHAPED = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


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
    # Which selects all, and weighs them.
    positions = "all" if positions == "divergence" else positions
    return {"positions": positions, "position_k": position_k if counted else None}


def reads_facts(*, own: bool) -> dict[str, str]:
    """Whose tokens the teacher reads, as records name it; nothing for the student's."""
    return {"teacher_tokenizer": "own"} if own else {}


def drawn_rollouts(
    shaping: Mapping[str, Any],
    max_completion_length: int | None,
    chat_template_kwargs: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """How rollouts are drawn, as a bridge's provenance names it.

    Args:
        shaping: values of `UNSHAPED` that differ from it; what else it holds is passed over.
        max_completion_length: the limit of a response.
        chat_template_kwargs: what the chat template is given; None where that is not known.
    """
    return {
        **{name: shaping.get(name, neutral) for name, neutral in UNSHAPED.items()},
        "max_completion_length": max_completion_length,
        "chat_template_kwargs": chat_template_kwargs,
    }


def prompts_identity(prompt_ids: Sequence[Sequence[int]]) -> dict[str, Any]:
    """`count` and `hash` of the prompts of a fit, as the student reads them."""
    ids = json.dumps([list(prompt) for prompt in prompt_ids])
    return {"count": len(prompt_ids), "hash": hashlib.sha256(ids.encode()).hexdigest()[:16]}
