"""The student's forward pass in two parts: only the supervised window has a graph.

What a sequence reads before its window goes into a KV cache without gradient. The states in the
window are those of a whole forward pass; their gradient lacks what flows back through the keys and
values of the prefix, and is therefore biased.

Each sequence has its own window, see `windows`.

Letters: B sequences, T tokens.
"""

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from oprd.core.capture import Transform, blocks, capture_states, decoder, num_layers
from oprd.models.reading import Reading, View, base_forward, read
from oprd.models.windows import Windows, join_rows

# Rotary embeddings whose angles for a token depend on the tokens after it.
LENGTH_DEPENDENT_ROPES = {"dynamic", "longrope"}


def read_windowed(
    model: nn.Module,
    view: View,
    layers: Sequence[int],
    window: Tensor,
    *,
    last: bool = False,
    transform: Transform | None = None,
) -> Reading:
    """What `oprd.models.reading.read` keeps, with a graph through the windows alone.

    Dropout, in training mode, falls on prefixes and windows alike.

    Args:
        model: the student, not wrapped for distribution.
        view: what it reads.
        layers: see `read`.
        window: [B, T] bool. Its first row in a sequence is where the window starts: at or before
            the sequence's first supervised row.
        last: see `read`; these rows may stand before the window.
        transform: see `read`.

    Raises:
        ValueError: the batch is not of text alone, or the model does not keep the prefix's keys and
            values in a cache, or does not read them from it.
    """
    if view.extra:
        raise ValueError(
            f"a batch has {', '.join(view.extra)}, and prefix_gradients=False is for text alone: "
            "set prefix_gradients=True."
        )
    kept = view.response if last else view.rows
    windows = Windows.of(view.input_ids, view.attention_mask, window, kept)
    parts = windows.split(view.response)
    states: MutableMapping[int, Tensor] = {}
    before: MutableMapping[int, Tensor] = {}
    after: MutableMapping[int, Tensor] = {}
    with ExitStack() as captures:
        if last:
            before = captures.enter_context(capture_states(model, "last", parts[0]))
        prefix = _read_prefix(model, windows)
    # Closed before backward: gradient checkpointing runs the forward pass again.
    with ExitStack() as captures:
        if layers:
            rows = windows.split(view.rows)[1]
            states = captures.enter_context(capture_states(model, layers, rows, transform))
        if last:
            after = captures.enter_context(capture_states(model, "last", parts[1]))
        _read_windows(model, windows, prefix)
    both = zip(before.values(), after.values(), strict=True)
    return Reading(states, *(join_rows(parts, pair) for pair in both))


class _PrefixLayer(DynamicLayer):
    """A block's keys and values of the prefix, joined to those of the windows, never changed.

    That makes reading them repeatable, as gradient checkpointing needs.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = self._prefix = keys, values
        self.was_read = False

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        self.was_read = True
        keys, values = self._prefix
        return torch.cat([keys, key_states], dim=-2), torch.cat([values, value_states], dim=-2)


def _read_prefix(model: nn.Module, windows: Windows) -> list[_PrefixLayer]:
    """Each block's keys and values of the prefix."""
    # Made without the model's configuration, it keeps every column of sliding layers too, and their
    # mask chooses.
    cache = DynamicCache()
    ids = windows.input_ids[:, : windows.prefix]
    with torch.no_grad(), _flags_off(model):
        base_forward(model, ids, windows.attention_mask[:, : windows.prefix], cache=cache)
    # Autocast keeps the weights it cast, and these were cast without a graph.
    torch.clear_autocast_cache()
    written = [held for held in cache.layers if isinstance(held, DynamicLayer)]
    if len(written) != (expected := len(blocks(model))):
        raise ValueError(
            _refusal(model, f"only {len(written)} of {expected} blocks wrote to the cache")
        )
    return [_PrefixLayer(cast(Tensor, held.keys), cast(Tensor, held.values)) for held in written]


def _read_windows(model: nn.Module, windows: Windows, prefix: list[_PrefixLayer]) -> None:
    ids = windows.input_ids[:, windows.prefix :]
    with _checkpointing(model):
        base_forward(model, ids, windows.attention_mask, cache=Cache(layers=[*prefix]))
    if unread := [block for block, held in enumerate(prefix) if not held.was_read]:
        raise ValueError(_refusal(model, f"blocks {unread} did not read the cache"))


@contextmanager
def _checkpointing(model: nn.Module) -> Iterator[None]:
    """Checkpoint the blocks that the model would: by itself it leaves the cache out."""
    with ExitStack() as stack:
        for block in blocks(model):
            if block.training and getattr(block, "gradient_checkpointing", False):
                stack.enter_context(_checkpointed(block))
        stack.enter_context(_flags_off(model))
        yield


@contextmanager
def _checkpointed(block: Any) -> Iterator[None]:
    forward, checkpoint = block.forward, block._gradient_checkpointing_func
    had_its_own = "forward" in vars(block)

    def run(kwargs: dict[str, Any], *args: Any) -> Any:
        # The backward pass comes here again, when the flags are back.
        with _flags_off(block):
            return forward(*args, **kwargs)

    block.forward = lambda *args, **kwargs: checkpoint(partial(run, kwargs), *args)
    try:
        yield
    finally:
        if had_its_own:
            block.forward = forward
        else:
            del block.forward


@contextmanager
def _flags_off(model: nn.Module) -> Iterator[None]:
    """Switch off what Transformers' gradient checkpointing goes by."""
    flagged: list[Any] = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False)]
    for module in flagged:
        module.gradient_checkpointing = False
    try:
        yield
    finally:
        for module in flagged:
            module.gradient_checkpointing = True


def check_windows(model: Any) -> None:
    """Compare states in windows with those of a whole forward pass, on a few made-up tokens.

    Where the weights are elsewhere (partitioned, or on the meta device) only the configuration is
    looked at; that the cache was read is checked in every forward pass.

    Raises:
        ValueError: they differ, or the model cannot run in two parts.
    """
    text = model.config.get_text_config()
    if kinds := _rope_types(getattr(text, "rope_parameters", None)) & LENGTH_DEPENDENT_ROPES:
        raise ValueError(_refusal(model, f"its rope_type {kinds.pop()!r} rotates by total length"))
    # Exact classes: those of blocks with a recurrent state too derive from them.
    held = [type(layer) for layer in DynamicCache(config=text).layers]
    keys_alone = (DynamicLayer, DynamicSlidingWindowLayer)
    if others := [block for block, kind in enumerate(held) if kind not in keys_alone]:
        problem = f"blocks {others} keep other than keys and values, such as a recurrent state"
        raise ValueError(_refusal(model, problem))
    if any(parameter.is_meta or parameter.numel() == 0 for parameter in model.parameters()):
        return
    ids = torch.arange(24, device=model.device).view(2, 12) % text.vocab_size
    attention_mask, rows = torch.ones_like(ids), torch.zeros_like(ids).bool()
    attention_mask[0, :3] = 0
    rows[0, 5:8] = rows[1, 9] = True
    view, layers = View(ids, attention_mask, rows, rows), range(1, num_layers(model) + 1)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            whole = read(model, view, layers).states
            states = read_windowed(model, view, layers, rows).states
    except Exception as error:  # whatever a model does that has no such cache
        raise ValueError(_refusal(model, str(error) or type(error).__name__)) from error
    finally:
        model.train(was_training)
    for layer, expected in whole.items():
        error = float((states[layer] - expected).float().norm() / expected.float().norm())
        if error > (1e-3 if expected.dtype.itemsize >= 4 else 0.1):
            problem = f"states of layer {layer} differ from a whole forward pass by {error:.1%}"
            raise ValueError(_refusal(model, problem))


def _rope_types(parameters: dict[str, Any] | None) -> set[str]:
    """Kinds of rotary embedding; a model with several kinds of layers has one for each."""
    nested = [value for value in (parameters or {}).values() if isinstance(value, dict)]
    return {found["rope_type"] for found in nested or [parameters or {}] if "rope_type" in found}


def _refusal(model: nn.Module, problem: str) -> str:
    return (
        f"{type(decoder(model)).__name__} cannot read its prefix apart from its window: {problem}. "
        "Set prefix_gradients=True."
    )
