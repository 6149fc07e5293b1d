"""One forward pass of a model's base, without its LM head.

Letters: B sequences, K response tokens, T all tokens.
"""

import inspect
from typing import Any

from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions [B, T] counted from each sequence's first real token; 0 at padding before it.

    Without them a model counts from the first column, so that left padding would shift its states.
    """
    return (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)


def base_forward(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    cache: Cache | None = None,
    **inputs: Any,
) -> BaseModelOutput:
    """Run the base model: the LM head is not called and no logits exist.

    Args:
        model: a causal language model, with or without PEFT, not wrapped for distribution.
        input_ids: [B, T], or the last columns of it where the cache holds those before.
        attention_mask: [B, T], 1 at real tokens.
        cache: keys and values, which the model reads and adds to.
        inputs: further inputs of the base model, such as a picture's.
    """
    base = _base(model)
    takes = inspect.signature(base.forward).parameters
    # Models that read pictures work out positions of more dimensions from them.
    if not inputs and "position_ids" in takes:
        inputs["position_ids"] = position_ids(attention_mask)[:, -input_ids.shape[1] :]
    if cache is not None:
        # Transformers renamed it in 5.24. Asked of the model, because code that comes with weights
        # keeps the old name under a new Transformers.
        inputs["cache" if "cache" in takes else "past_key_values"] = cache
    return base(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=cache is not None, **inputs
    )


def predicting_rows(positions: Tensor, prompt_length: int) -> Tensor:
    """Rows of the states that predict the selected response tokens.

    Args:
        positions: [B, K], true at supervised response tokens.
        prompt_length: columns of the padded prompt, at least 1.

    Returns:
        [B, T] bool over prompt and response; response token t is predicted one column before it.
    """
    rows = positions.new_zeros(len(positions), prompt_length + positions.shape[1])
    rows[:, prompt_length - 1 : -1] = positions
    return rows


def _base(model: Any) -> nn.Module:
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return model.base_model


def context_length(config: Any) -> int | None:
    """The longest sequence that a model of this configuration reads, None where it has no limit."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None
