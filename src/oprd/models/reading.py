"""What a model reads of a batch of rollouts, and what is kept of its one forward pass.

No LM head is called and no logits exist.

Letters: B sequences, K response tokens, T all tokens, N supervised rows, M response rows, D width.
"""

import inspect
from collections.abc import Callable, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput

from oprd.core.capture import Transform, capture_states, decoder

# Of a view.
TENSORS = ("input_ids", "attention_mask", "rows", "response")


@dataclass(frozen=True, eq=False)
class View:
    """The half of a batch that one model reads: its tokens, and which of its states count.

    Two views of the same rollouts meet row by row: `rows` of both have equally many true entries in
    every sequence, and row n of one, in row-major order, meets row n of the other. A token without
    a partner is supervised in neither. `response` need not match: what is computed from the states
    that predict all response tokens needs views in which it does.

    Attributes:
        input_ids: [B, T].
        attention_mask: [B, T], 1 at real tokens.
        rows: [B, T] bool, the N states that predict supervised tokens.
        response: [B, T] bool, the M states that predict any response token.
        extra: further inputs of the base model, such as a picture's.

    Raises:
        ValueError: a mask has not the shape of the tokens.
    """

    input_ids: Tensor
    attention_mask: Tensor
    rows: Tensor
    response: Tensor
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("attention_mask", "rows", "response"):
            shape = getattr(self, name).shape
            if shape != self.input_ids.shape:
                raise ValueError(
                    f"{name} must have the shape of input_ids, {tuple(self.input_ids.shape)}, "
                    f"got {tuple(shape)}."
                )

    @classmethod
    def of_rollouts(
        cls,
        input_ids: Tensor,
        attention_mask: Tensor,
        response: Tensor,
        positions: Tensor | None = None,
        extra: dict[str, Any] | None = None,
    ) -> "View":
        """The view of a model that reads prompts and responses as they were written.

        Args:
            input_ids: [B, T], whose last K columns are the responses, after at least one other.
            attention_mask: [B, T].
            response: [B, K] bool, true at response tokens.
            positions: [B, K] bool, those that are supervised; all of them by default.
            extra: see the attribute.
        """
        prompt_length = input_ids.shape[1] - response.shape[1]
        written = predicting_rows(response, prompt_length)
        rows = written if positions is None else predicting_rows(positions, prompt_length)
        return cls(input_ids, attention_mask, rows, written, extra or {})

    @classmethod
    def of_texts(cls, input_ids: Tensor, attention_mask: Tensor | None = None) -> "View":
        """The view of a model all of whose real states are read."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return cls(input_ids, mask, mask.bool(), mask.bool())

    def take(self, index: Tensor) -> "View":
        """Some of its sequences, by their index [b].

        Raises:
            ValueError: it has further inputs, which stand by no sequence.
        """
        if self.extra:
            raise ValueError(
                f"{', '.join(self.extra)} cannot be split by sequence: several teachers read "
                "rollouts of text alone."
            )
        return replace(self, **{name: getattr(self, name)[index] for name in TENSORS})

    def unsupervised(self) -> "View":
        """The same tokens, of which no state counts."""
        nothing = torch.zeros_like(self.rows)
        return replace(self, rows=nothing, response=nothing)

    def to(self, device: torch.device | str) -> "View":
        """The same view on a device; `extra` stays where it is."""
        return replace(self, **{name: getattr(self, name).to(device) for name in TENSORS})


class Reading(NamedTuple):
    """What a forward pass left.

    Attributes:
        states: [N, D] by layer at the view's `rows`, or what the transform made of them.
        last: [M, D] after the final norm at the view's `response`, if asked for.
    """

    states: MutableMapping[int, Tensor]
    last: Tensor | None = None


def read(
    model: nn.Module,
    view: View,
    layers: Sequence[int],
    *,
    last: bool = False,
    transform: Transform | None = None,
    forward: Callable[..., Any] | None = None,
) -> Reading:
    """Run a model's base over a view and keep rows of its states.

    Args:
        model: not wrapped for distribution.
        view: what it reads.
        layers: whose `rows` are kept; may be empty.
        last: also keep the last layer's `response` rows.
        transform: see `oprd.core.capture.capture_states`; for `layers` alone.
        forward: runs the model, by default `base_forward`; called as that is.
    """
    states: MutableMapping[int, Tensor] = {}
    final: MutableMapping[int, Tensor] = {}
    # Closed before backward: gradient checkpointing runs the forward pass again.
    with ExitStack() as captures:
        if layers:
            states = captures.enter_context(capture_states(model, layers, view.rows, transform))
        if last:
            final = captures.enter_context(capture_states(model, "last", view.response))
        (forward or base_forward)(model, view.input_ids, view.attention_mask, **view.extra)
    return Reading(states, *final.values())


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


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions [B, T] counted from each sequence's first real token; 0 at padding before it.

    Without them a model counts from the first column, so that left padding would shift its states.
    """
    return (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)


def base_model(model: Any, *, pictures: bool = False) -> nn.Module:
    """What a model has below its LM head.

    Llama 4 has its head inside: of text alone its decoder is read, with pictures the whole model.

    Args:
        model: a causal language model, with or without PEFT, not wrapped for distribution.
        pictures: whether there are further inputs than text.
    """
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    base = model.base_model
    return decoder(model) if base is model and not pictures else base


def base_forward(
    model: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    cache: Cache | None = None,
    **inputs: Any,
) -> BaseModelOutput:
    """Run the base model: the LM head is not called and no logits exist.

    The one exception is a model with its head inside, see `base_model`: it makes the last token's.

    Args:
        model: a causal language model, with or without PEFT, not wrapped for distribution.
        input_ids: [B, T], or the last columns of it where the cache holds those before.
        attention_mask: [B, T], 1 at real tokens.
        cache: keys and values, which the model reads and adds to.
        inputs: further inputs of the base model, such as a picture's.
    """
    base = base_model(model, pictures=bool(inputs))
    takes = inspect.signature(base.forward).parameters
    # Models that read pictures work out positions of more dimensions from them.
    if not inputs and "position_ids" in takes:
        inputs["position_ids"] = position_ids(attention_mask)[:, -input_ids.shape[1] :]
    if cache is not None:
        # Transformers renamed it in 5.24. Asked of the model, because code that comes with weights
        # keeps the old name under a new Transformers.
        inputs["cache" if "cache" in takes else "past_key_values"] = cache
    if "logits_to_keep" in takes:
        inputs["logits_to_keep"] = 1
    return base(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=cache is not None, **inputs
    )


def context_length(config: Any) -> int | None:
    """The longest sequence that a model of this configuration reads, None where it has no limit."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None
