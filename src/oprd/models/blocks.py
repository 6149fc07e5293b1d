"""A model without some of its blocks, and where its states meet those of the whole.

Blocks are numbered from 1, as the states that they write; L is the number of them.
"""

import copy
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from oprd.core.capture import blocks, num_layers
from oprd.core.layers import LayerPair, pairs_text
from oprd.models.reading import View, read

# How far apart the states of a model without blocks and of the whole one that skips them may be,
# relative to their size: far above rounding, far below what another kind of block makes of them.
CLOSE = 0.02
# Tokens on which they are compared.
COMPARED = 16


def parse_blocks(text: str) -> tuple[int, ...]:
    """Blocks as `"10-15,20"` names them, ascending.

    Raises:
        ValueError: it is no list of numbers and ranges, or one repeats.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,6})(?:\s*-\s*([0-9]{1,6}))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f"blocks are numbers and ranges, such as '10-15,20', got {text!r}.")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    if len(set(found)) < len(found):
        raise ValueError(f"{text!r} names a block more than once.")
    return tuple(sorted(found))


def kept_blocks(depth: int, dropped: Collection[int]) -> tuple[int, ...]:
    """The blocks that stay of L = `depth`, ascending.

    Raises:
        ValueError: a block that is dropped is none of 1..L, or none would stay.
    """
    if beyond := sorted(number for number in dropped if not 1 <= number <= depth):
        raise ValueError(f"there is no block {beyond[0]} to drop: the model has {depth}, from 1.")
    kept = tuple(number for number in range(1, depth + 1) if number not in dropped)
    if not kept:
        raise ValueError(f"all {depth} blocks would be dropped: leave at least one.")
    return kept


def original_pairs(depth: int, dropped: Collection[int]) -> str:
    """A `layer_pairing` in which every block that stays meets itself in the whole model.

    The last one writes the state that the final norm is applied to, and meets the last of L =
    `depth` whichever it is.

    Raises:
        ValueError: see `kept_blocks`.
    """
    kept = kept_blocks(depth, dropped)
    meet = [*kept[:-1], depth]
    return pairs_text([LayerPair(new, old) for new, old in enumerate(meet, 1)])


def drop_blocks(model: PreTrainedModel, dropped: Collection[int]) -> PreTrainedModel:
    """A model of the blocks that stay, with copies of their weights, in eval mode.

    Args:
        model: a causal language model without adapters; it is left as it is.
        dropped: the numbers of the others.

    Raises:
        ValueError: see `kept_blocks`; there is an adapter; or the architecture decides by a block's
            number what it does, in a way that is not carried over, so that states differ from those
            of the whole model skipping these blocks.
    """
    if hasattr(model, "peft_config"):
        raise ValueError("blocks are dropped of whole weights: merge the adapter first.")
    kept = kept_blocks(num_layers(model), dropped)
    whole = blocks(model)
    (prefix,) = (name for name, module in model.named_modules() if module is whole)
    # Made anew and not cut, so that everything which knows a block's number is told its new one.
    smaller = cast(Any, type(model))(_config_of(model, kept)).to(model.device)
    new = {old - 1: place for place, old in enumerate(kept)}
    weights = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(f"{prefix}."):
            number, _, rest = name.removeprefix(f"{prefix}.").partition(".")
            if int(number) not in new:
                continue
            name = f"{prefix}.{new[int(number)]}.{rest}"
        weights[name] = tensor
    # One by one: some models keep weights, and what positions are made of, in more precision.
    for name, parameter in smaller.named_parameters():
        parameter.data = parameter.data.to(weights[name])
    smaller.load_state_dict(weights)
    smaller.generation_config = copy.deepcopy(model.generation_config)
    smaller.eval()
    _check_skips(model, smaller, dropped)
    return smaller


def least_needed(model: PreTrainedModel, count: int, view: View) -> tuple[int, ...]:
    """The blocks without which the last states change least, found one after another.

    Each is the one whose removal, beside those already found, leaves the lowest mean of 1 − cos
    between the states after the final norm with and without them. It costs a forward pass for every
    block that is left, each time.

    Args:
        model: a causal language model.
        count: of blocks to be found.
        view: what is read, best what the model writes itself; its `rows` are compared.

    Returns:
        their numbers, in the order in which they were found.

    Raises:
        ValueError: `count` is not from 1 to below L, or the view has no row.
    """
    depth = num_layers(model)
    if not 1 <= count < depth:
        raise ValueError(f"of {depth} blocks from 1 to {depth - 1} can be dropped, got {count}.")
    if not view.rows.any():
        raise ValueError("no row of the view is compared: let it have some.")
    found: list[int] = []
    whole = last_states(model, view)

    def change(number: int) -> float:
        with skipping(model, [*found, number]):
            states = last_states(model, view)
        return float(1 - nn.functional.cosine_similarity(states, whole).mean())

    for _ in range(count):
        left = [number for number in range(1, depth + 1) if number not in found]
        found.append(min(left, key=change))
    return tuple(found)


@torch.no_grad()
def last_states(model: nn.Module, view: View) -> Tensor:
    """The states [N, D] after the final norm at a view's rows, in float32."""
    depth = num_layers(model)
    device = next(model.parameters()).device
    return read(model, view.to(device), (depth,)).states[depth].float()


@contextmanager
def skipping(model: nn.Module, numbers: Collection[int]) -> Iterator[None]:
    """Let a model's forward passes leave out what some blocks do, without a KV cache."""
    with ExitStack() as hooks:
        for number, block in enumerate(blocks(model), 1):
            if number in numbers:
                hooks.callback(block.register_forward_hook(_unchanged, with_kwargs=True).remove)
        yield


def _unchanged(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    states = args[0] if args else kwargs["hidden_states"]
    return (states, *output[1:]) if isinstance(output, tuple) else states


def _config_of(model: PreTrainedModel, kept: Sequence[int]) -> Any:
    """The configuration of a model of some blocks: what it lists for each is listed for these."""
    config = copy.deepcopy(model.config)
    text, depth = cast(Any, config.get_text_config()), num_layers(model)
    text.num_hidden_layers = len(kept)
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == depth:
            setattr(text, name, [value[number - 1] for number in kept])
    return config


def _check_skips(whole: PreTrainedModel, smaller: nn.Module, dropped: Collection[int]) -> None:
    """Refuse, with a ValueError, a smaller model that is not the whole one skipping blocks."""
    vocabulary = int(whole.config.get_text_config().vocab_size)
    ids = torch.arange(COMPARED, device=whole.device)[None] % vocabulary
    view = View.of_texts(ids)
    mode = whole.training
    try:
        with skipping(whole.eval(), dropped):
            expected = last_states(whole, view)
    finally:
        whole.train(mode)
    apart = (last_states(smaller, view) - expected).norm() / expected.norm()
    if not apart < CLOSE:
        raise ValueError(
            f"{type(whole).__name__} without the blocks {', '.join(map(str, dropped))} is not what "
            f"it is when it skips them: its states are {float(apart):.0%} of their size away. What "
            "its blocks do depends on their numbers: drop others, or choose another architecture."
        )
