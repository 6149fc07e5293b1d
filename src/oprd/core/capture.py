"""Selected hidden states out of a forward pass: by hooks, and nothing more kept than asked for.

A state's number is its index in Transformers' `hidden_states`: l is the output of block l, and L is
taken after the final norm.

Letters: B sequences, T tokens, K tokens of a slice, N selected rows, D width.
"""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from oprd.core.layers import select_layers
from oprd.core.positions import gather_rows, row_index

Keep = Callable[[Tensor], Tensor]
Transform = Callable[[int, Tensor], Tensor]


class States(dict[int, Tensor]):
    """Captured states by layer; a layer that was not captured is a `KeyError` that says why."""

    def __missing__(self, layer: int) -> Tensor:
        raise KeyError(
            f"no state of layer {layer}: captured are {sorted(self) or 'none'}. Name the layer in "
            "capture_states and run the model inside its block."
        )


def decoder(model: nn.Module) -> nn.Module:
    """The stack of blocks with its final norm, inside any of the usual wrappers.

    Wrappers: DistributedDataParallel (`module`), PEFT (`get_base_model`), a causal language model,
    a multimodal model.
    """
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model = model.module
    if hasattr(model, "get_base_model"):
        model = cast(Any, model).get_base_model()
    found: Any = cast(Any, model).get_decoder() if hasattr(model, "get_decoder") else model
    # ModernBERT calls its output layer `decoder`, and that is what is found.
    if found is not model and not hasattr(found, "config"):
        found = model.base_model
    # Llama 4 and Mllama name a base model that their causal language model does not have.
    if getattr(found, "base_model", None) is found:
        found = getattr(found, "model", found)
    return found


def blocks(model: nn.Module) -> nn.ModuleList:
    """The blocks of a model, in their order.

    Raises:
        ValueError: they cannot be found.
    """
    stack = decoder(model)
    depth = getattr(_text_config(stack), "num_hidden_layers", None)
    lists = [child for child in stack.children() if isinstance(child, nn.ModuleList)]
    found = [child for child in lists if len(child) == depth]
    if len(found) != 1:
        problem = (
            "its configuration has no num_hidden_layers"
            if depth is None
            else f"expected one list of {depth} modules, found {len(found)}"
        )
        raise ValueError(
            f"cannot find the blocks of {type(stack).__name__}: {problem}. "
            "Choose a model of another architecture."
        )
    return found[0]


def num_layers(model: nn.Module) -> int:
    """The number of blocks L of a model."""
    return len(blocks(model))


def hidden_size(model: nn.Module) -> int:
    """The width D of a model's states."""
    return int(_text_config(decoder(model)).hidden_size)


@contextmanager
def capture_states(
    model: nn.Module,
    layers: str | Sequence[int],
    rows: slice | Tensor | None = None,
    transform: Transform | None = None,
) -> Iterator[MutableMapping[int, Tensor]]:
    """Capture states of chosen layers from the forward passes inside the block.

    The states belong to the graph of the forward pass that made them. Leave the block before
    `backward`: gradient checkpointing runs the forward pass again.

    Args:
        model: a causal language model of Transformers, its base model, or either under PEFT or DDP.
        layers: a specification of `oprd.core.layers.select_layers`.
        rows: which rows are kept: None for all, a slice of the token axis, or a [B, T] bool mask.
        transform: called with a layer and its rows as the model reaches it; what it returns is kept
            in their place, so that no two layers' rows need exist at once.

    Yields:
        A mapping from layer to states, filled as the model runs: [B, T, D] for None, [B, K, D] for
        a slice, [N, D] in row-major order for a mask; in the model's dtype.

    Raises:
        ValueError: a layer does not exist, the mask is not [B, T] bool, or the model's blocks
            cannot be found.
    """
    stack, layer_blocks = decoder(model), blocks(model)
    last = len(layer_blocks)
    selected = select_layers(layers, last)
    keep = _row_selector(rows)
    states = States()
    with ExitStack() as hooks:
        for layer in selected:
            handle = (
                stack.register_forward_hook(_keep_output(states, layer, keep, transform))
                if layer == last
                else layer_blocks[layer].register_forward_pre_hook(
                    _keep_input(states, layer, keep, transform), with_kwargs=True
                )
            )
            hooks.callback(handle.remove)
        yield states


def _keep_input(
    states: States, layer: int, keep: Keep, transform: Transform | None
) -> Callable[..., None]:
    # What block l+1 reads is what block l wrote. Read on the way in, it is part of the graph under
    # both kinds of gradient checkpointing, whichever side of the checkpoint the hooks are on.
    def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        state: Tensor = args[0] if args else kwargs["hidden_states"]
        with _before_checkpoint(block, state):
            rows = keep(state)
            states[layer] = transform(layer, rows) if transform else rows

    return hook


@contextmanager
def _before_checkpoint(block: nn.Module, state: Tensor) -> Iterator[None]:
    """Make a graph that a block's checkpoint does not see, although its hooks may run inside.

    Up to 5.22 Transformers checkpoints a block's `__call__`, hooks and all. What they save for
    backward would be missing when the block runs again without them; and a reentrant checkpoint
    runs them without a graph.
    """
    if type(block).__call__ is nn.Module.__call__:
        yield
        return
    graph = torch.is_grad_enabled() or state.requires_grad
    # Of nested hooks for saved tensors the innermost get them: these, not the checkpoint's.
    with saved_tensors_hooks(_as_it_is, _as_it_is), torch.set_grad_enabled(graph):
        yield


def _as_it_is(saved: Tensor) -> Tensor:
    return saved


def _keep_output(
    states: States, layer: int, keep: Keep, transform: Transform | None
) -> Callable[..., None]:
    def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        rows = keep(output[0])
        states[layer] = transform(layer, rows) if transform else rows

    return hook


def _row_selector(rows: slice | Tensor | None) -> Keep:
    if rows is None:
        return lambda states: states
    if isinstance(rows, slice):
        # Without a graph nothing else holds the whole [B, T, D] state, and a view would.
        return lambda states: (
            states[:, rows] if states.requires_grad else states[:, rows].contiguous().clone()
        )
    if rows.dtype != torch.bool or rows.ndim != 2:
        raise ValueError(
            f"rows must be None, a slice or a [B, T] bool mask, got {rows.dtype} "
            f"of shape {tuple(rows.shape)}."
        )
    index = row_index(rows)

    def keep(states: Tensor) -> Tensor:
        if states.shape[:2] != rows.shape:
            raise ValueError(
                f"the mask of rows is {tuple(rows.shape)}, but the states are "
                f"{tuple(states.shape[:2])} sequences × tokens."
            )
        return gather_rows(states, index)

    return keep


def _text_config(stack: nn.Module) -> Any:
    config = getattr(stack, "config", None)
    if config is None:
        raise ValueError(f"{type(stack).__name__} has no config: a Transformers model is needed.")
    return config.get_text_config()
