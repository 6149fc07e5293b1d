"""The student's forward pass in two parts: only the supervised window has a graph.

What a sequence reads before its window goes into a KV cache without gradient. The states in the
window are those of a whole forward pass; their gradient lacks what flows back through the keys and
values of the prefix, and is therefore biased.

Each sequence's window starts where its own first supervised row stands. The sequences are shifted
so that all windows start in one column, and no token is read that no supervised row depends on.

Letters: B sequences, T tokens, P columns of prefixes, W columns of windows.
"""

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from oprd.core.capture import Transform, blocks, capture_states, decoder
from oprd.training.forward import base_forward

# Rotary embeddings whose angles for a token depend on the tokens after it.
LENGTH_DEPENDENT_ROPES = {"dynamic", "longrope"}


class Windows(NamedTuple):
    """A batch whose windows start in one column.

    Attributes:
        input_ids: [B, P + W].
        attention_mask: [B, P + W], 1 at tokens that a supervised row depends on.
        rows: [B, W] bool, the supervised rows.
    """

    input_ids: Tensor
    attention_mask: Tensor
    rows: Tensor

    @property
    def prefix(self) -> int:
        """P, at least 1."""
        return self.input_ids.shape[1] - self.rows.shape[1]


def align_windows(input_ids: Tensor, attention_mask: Tensor, rows: Tensor) -> Windows:
    """Shift sequences so that their windows start in one column.

    A window reaches from a sequence's first supervised row to its last. Prefix and windows are at
    least one column wide, of padding if need be, so that every process of a sharded model runs the
    same forward passes.

    Args:
        input_ids: [B, T].
        attention_mask: [B, T], 1 at real tokens.
        rows: [B, T] bool, the supervised rows; a sequence may have none.
    """
    length = input_ids.shape[1]
    columns = torch.arange(length, device=input_ids.device)
    start = rows.int().argmax(dim=1)
    end = (rows * (columns + 1)).amax(dim=1)
    first = attention_mask.int().argmax(dim=1)
    widest = torch.stack([(start - first).max(), (end - start).max()]).clamp(min=1)
    prefix, width = widest.tolist()
    source = torch.arange(-prefix, width, device=input_ids.device) + start[:, None]
    inside = (source >= 0) & (source < end[:, None])
    source = source.clamp(0, length - 1)
    return Windows(
        input_ids.gather(1, source),
        attention_mask.gather(1, source) * inside,
        (rows.gather(1, source) & inside)[:, prefix:],
    )


def capture_window(
    model: nn.Module,
    layers: str | Sequence[int],
    windows: Windows,
    transform: Transform | None = None,
) -> MutableMapping[int, Tensor]:
    """Capture the supervised rows of chosen layers, with a graph through the windows alone.

    The states are those of `capture_states` around `base_forward` on the whole batch. Dropout, in
    training mode, falls on prefix and windows alike.

    Args:
        model: the student, as for `base_forward`.
        layers: as for `capture_states`.
        windows: the batch.
        transform: as for `capture_states`.

    Raises:
        ValueError: the model does not keep the prefix's keys and values in a cache, or does not
            read them from it.
    """
    prefix = _read_prefix(model, windows)
    with capture_states(model, layers, windows.rows, transform) as states, _checkpointing(model):
        ids = windows.input_ids[:, windows.prefix :]
        base_forward(model, ids, windows.attention_mask, cache=Cache(layers=[*prefix]))
    if unread := [block for block, held in enumerate(prefix) if not held.was_read]:
        raise ValueError(_refusal(model, f"blocks {unread} did not read the cache"))
    return states


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


def _read_prefix(model: nn.Module, windows: Windows) -> list["_PrefixLayer"]:
    """Each block's keys and values of the prefix."""
    # Made without the model's configuration, it keeps every column of sliding layers too, and their
    # mask chooses.
    cache = DynamicCache()
    prefix = slice(windows.prefix)
    with torch.no_grad(), _flags_off(model):
        base_forward(
            model, windows.input_ids[:, prefix], windows.attention_mask[:, prefix], cache=cache
        )
    # Autocast keeps the weights it cast, and these were cast without a graph.
    torch.clear_autocast_cache()
    written = [held for held in cache.layers if isinstance(held, DynamicLayer)]
    if len(written) != (expected := len(blocks(model))):
        raise ValueError(
            _refusal(model, f"only {len(written)} of {expected} blocks wrote to the cache")
        )
    return [_PrefixLayer(cast(Tensor, held.keys), cast(Tensor, held.values)) for held in written]


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
    if any(parameter.is_meta or parameter.numel() == 0 for parameter in model.parameters()):
        return
    ids = torch.arange(24, device=model.device).view(2, 12) % text.vocab_size
    attention_mask, rows = torch.ones_like(ids), torch.zeros_like(ids, dtype=torch.bool)
    attention_mask[0, :3] = 0
    rows[0, 5:8] = rows[1, 9] = True
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            with capture_states(model, "all", rows) as whole:
                base_forward(model, ids, attention_mask)
            states = capture_window(model, "all", align_windows(ids, attention_mask, rows))
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
