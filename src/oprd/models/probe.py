"""A few tokens through a model, to see that what is read of it is what it computes.

What a configuration names is not always what a model does: a scale that a wrapper leaves out, a
cap of another name, padding that leaks into a recurrent state. Nor is every model one stack of
blocks that hand on one state. A model reads 20 tokens for it.

Letters: T tokens, V vocabulary, D width, L blocks.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from oprd.core.capture import capture_states, hidden_size, num_layers
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
        layers: by layer 1..L what was captured of it, [T, D] in a model that can be read.
        hidden_states: what it returns itself under that name, None where it returns nothing.
    """

    logits: Tensor
    layers: dict[int, Tensor]
    hidden_states: tuple[Tensor, ...] | None

    @property
    def states(self) -> Tensor:
        """[T, D] after the final norm."""
        return self.layers[max(self.layers)]


def stands_whole(model: nn.Module) -> bool:
    """Whether a model's weights are all here: not on the meta device, nor in pieces."""
    return not any(
        parameter.is_meta or parameter.numel() == 0 or isinstance(parameter, DTensor)
        for parameter in model.parameters()
    )


@torch.no_grad()
def probe(model: Any) -> Probe:
    """Let a causal language model read the tokens; its mode is left as it was.

    Raises:
        ValueError: its blocks cannot be found, or it does not run on text alone.
    """
    with evaluation_mode(model), capture_states(model, "all") as states:
        ids = _ids(model)
        try:
            output = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                use_cache=False,
                output_hidden_states=True,
            )
        except Exception as error:  # whatever a model raises that wants other inputs
            raise ValueError(
                f"{type(model).__name__} does not run on a few tokens of text alone "
                f"({type(error).__name__}: {error}). Choose a model of another architecture."
            ) from error
    own = getattr(output, "hidden_states", None)
    layers = {layer: state[0] for layer, state in states.items()}
    return Probe(output.logits[0], layers, None if own is None else tuple(own))


def check_readable(
    model: Any, role: str, layers: Iterable[int], *, heads: bool, one_width: bool
) -> Probe:
    """Refuse a model of which anything that is read is not what it computes.

    Args:
        model: a causal language model whose weights are all here.
        role: what messages call it.
        layers: whose states are compared.
        heads: whether its LM head is read, and the last states with it.
        one_width: whether all states must have the width that its configuration names.

    Returns:
        What it made of the tokens.

    Raises:
        ValueError: see `probe`, `check_states`, `check_padding` and `check_head`.
    """
    seen = probe(model)
    check_states(model, seen, role, sorted(layers), one_width=one_width)
    check_padding(model, seen, role, sorted({*layers, num_layers(model)}))
    if heads:
        check_head(model, seen, role)
    return seen


def check_states(
    model: Any, seen: Probe, role: str, layers: Sequence[int], *, one_width: bool = True
) -> None:
    """Refuse states that are no rows, or not what Transformers returns as `hidden_states`.

    Those begin with the embedding; a few models leave it out, and their block l stands at l - 1.

    Args:
        model: whose states were captured.
        seen: of the model.
        role: what messages call it.
        layers: which of them are looked at.
        one_width: see `check_readable`.

    Raises:
        ValueError: they are.
    """
    if (problem := _strange(model, seen, layers, one_width)) is None:
        return
    last = num_layers(model)
    way_out = (
        "Choose a model of another architecture, or an output_loss with representation_weight=0."
        if _strange(model, seen, [last], one_width)
        else "Those of its last layer can: set layers='last'."
    )
    raise ValueError(
        f"the {role}'s states cannot be read: {problem}. {type(model).__name__} is not one stack "
        f"of blocks that hand on one state. {way_out}"
    )


def _strange(model: Any, seen: Probe, layers: Sequence[int], one_width: bool) -> str | None:
    """What is wrong with a model's states, None where nothing is."""
    depth, width, own = num_layers(model), hidden_size(model), seen.hidden_states
    if missing := sorted(set(layers) - set(seen.layers)):
        return f"it read text without running all blocks, and layers {missing} have none"
    for layer in layers:
        shape = tuple(seen.layers[layer].shape)
        if len(shape) != 2 or shape[0] != TOKENS or (one_width and shape[1] != width):
            return f"{TOKENS} tokens have {shape} numbers in layer {layer}, not {(TOKENS, width)}"
    if own is None or len(own) != depth + 1:
        found = "none" if own is None else str(len(own))
        return f"its {depth} blocks should give {depth + 1} hidden_states, and it gives {found}"
    if not any(_equals_own(seen, own, layers, offset) for offset in (0, 1)):
        return "they are not what it gives as its hidden_states"
    return None


def _equals_own(seen: Probe, own: tuple[Tensor, ...], layers: Sequence[int], offset: int) -> bool:
    """Whether layer l stands at l - offset of a model's own states, and the last at the end."""
    last = len(own) - 1
    pairs = [(seen.layers[at], own[at if at == last else at - offset][0]) for at in layers]
    # States that are not finite differ from nothing: what is broken is named where it is met.
    return all(
        mine.shape == theirs.shape and not _relative(mine, theirs) > _tolerance(theirs)
        for mine, theirs in pairs
    )


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
def check_padding(model: Any, seen: Probe, role: str, layers: Sequence[int]) -> None:
    """Refuse a model whose states depend on the padding before a sequence.

    Args:
        model: a causal language model.
        seen: of the model.
        role: what messages call it.
        layers: whose states are looked at.

    Raises:
        ValueError: they do.
    """
    ids = torch.nn.functional.pad(_ids(model), (PADDING, 0))
    mask = torch.nn.functional.pad(torch.ones_like(_ids(model)), (PADDING, 0))
    with evaluation_mode(model):
        padded = read(model, View.of_texts(ids, mask), layers).states
    error = max(_relative(padded[layer], seen.layers[layer]) for layer in layers)
    if error > _tolerance(seen.states):
        raise ValueError(
            f"padding before a sequence changes the {role}'s states by {error:.1%}: "
            f"{type(model).__name__} lets it into its recurrent state or its positions, and "
            "rollouts of one batch are padded to one length. Choose a model of another "
            "architecture."
        )


def close(found: Tensor, expected: Tensor) -> bool:
    """Whether two readings of the same tokens differ by rounding alone."""
    return _relative(found, expected) <= _tolerance(expected)


def _ids(model: Any) -> Tensor:
    """[1, T], none of them 0, which is often padding."""
    size = int(model.config.get_text_config().vocab_size)
    return 1 + torch.arange(TOKENS, device=model.device)[None] * 7 % max(size - 1, 1)


def _relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.float(), expected.to(found.device).float()
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


def _tolerance(states: Tensor) -> float:
    return SINGLE if states.dtype.itemsize >= 4 else HALF
