"""A few tokens through a model, to see that what is read of it is what it computes.

What a configuration names is not always what a model does: a scale that a wrapper leaves out, a
cap of another name, padding that leaks into a recurrent state. A model reads 20 tokens for it.

Letters: T tokens, V vocabulary, D width.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from oprd.core.capture import capture_states, num_layers
from oprd.models.generate import evaluation_mode
from oprd.models.heads import lm_head
from oprd.models.reading import View, read

TOKENS, PADDING = 8, 4
# Relative errors that rounding does not explain, in float32 and in half precision.
SINGLE, HALF = 1e-3, 0.1


class Probe(NamedTuple):
    """What a model makes of some made-up tokens.

    Attributes:
        logits: [T, V], its own.
        states: [T, D] after the final norm.
    """

    logits: Tensor
    states: Tensor


def stands_whole(model: nn.Module) -> bool:
    """Whether a model's weights are all here: not on the meta device, nor in pieces."""
    return not any(
        parameter.is_meta or parameter.numel() == 0 or isinstance(parameter, DTensor)
        for parameter in model.parameters()
    )


@torch.no_grad()
def probe(model: Any) -> Probe:
    """Let a causal language model read the tokens; its mode is left as it was."""
    ids = _ids(model)
    with evaluation_mode(model), capture_states(model, "last") as states:
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return Probe(logits[0], states[num_layers(model)][0])


def check_head(model: Any, seen: Probe, role: str) -> None:
    """Refuse an LM head whose logits are not those that the model itself gives.

    Args:
        model: whose head is read.
        seen: of the model.
        role: what messages call it.

    Raises:
        ValueError: they differ, or the head cannot be read at all.
    """
    head = lm_head(model).detach()
    found = head.logits(
        seen.states, out=seen.states.new_empty(TOKENS, head.vocab_size, dtype=torch.float32)
    )
    own = seen.logits[:, : head.vocab_size].float()
    if (error := _relative(found, own)) > _tolerance(seen.states):
        raise ValueError(
            f"the {role}'s LM head as it is read gives other logits than the model itself, off by "
            f"{error:.1%}: its class, {type(model).__name__}, does something else between last "
            "state and logits than its configuration says. output_loss='none', "
            "diagnostics_steps=0 and updates_per_rollout=1 need no head."
        )


@torch.no_grad()
def check_padding(model: Any, seen: Probe, role: str) -> None:
    """Refuse a model whose states depend on the padding before a sequence.

    Args:
        model: a causal language model.
        seen: of the model.
        role: what messages call it.

    Raises:
        ValueError: they do.
    """
    ids = torch.nn.functional.pad(_ids(model), (PADDING, 0))
    mask = torch.nn.functional.pad(torch.ones_like(_ids(model)), (PADDING, 0))
    last = num_layers(model)
    with evaluation_mode(model):
        padded = read(model, View.of_texts(ids, mask), [last]).states[last]
    if (error := _relative(padded, seen.states)) > _tolerance(seen.states):
        raise ValueError(
            f"padding before a sequence changes the {role}'s states by {error:.1%}: "
            f"{type(model).__name__} lets it into its recurrent state, and rollouts of one batch "
            "are padded to one length. Choose a model of another architecture."
        )


def close(found: Tensor, expected: Tensor) -> bool:
    """Whether two readings of the same tokens differ by rounding alone."""
    return _relative(found, expected) <= _tolerance(expected)


def _ids(model: Any) -> Tensor:
    """[1, T], none of them 0, which is often padding."""
    size = int(model.config.get_text_config().vocab_size)
    return 1 + torch.arange(TOKENS, device=model.device)[None] * 7 % max(size - 1, 1)


def _relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.float(), expected.float()
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


def _tolerance(states: Tensor) -> float:
    return SINGLE if states.dtype.itemsize >= 4 else HALF
