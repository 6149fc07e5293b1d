"""Models that have shapes and no values, and what a pass through one holds.

Each storage that a pass makes counts for as long as it lives: what autocast makes of weights, and
not the weights themselves. What a kernel needs for itself, and what an allocator keeps, is not
seen.
"""

import copy
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def without_values(model: nn.Module, mode: FakeTensorMode) -> Any:
    """A copy of a model for passes in a mode, which compute nothing."""
    with FakeCopyMode(mode):
        return copy.deepcopy(model)


def loaded_in(dtype: torch.dtype, *models: nn.Module) -> tuple[Any, ...]:
    """Copies of models without values, as they would be loaded in another dtype."""
    mode = FakeTensorMode()
    # A tied weight is one tensor, and stays one.
    stand_ins = {
        id(tensor): _stand_in(tensor, dtype, mode) for model in models for tensor in tensors(model)
    }
    with FakeCopyMode(mode):
        return copy.deepcopy(models, stand_ins)


def tensors(model: nn.Module) -> Iterator[Tensor]:
    """Weights and buffers."""
    yield from model.parameters()
    yield from model.buffers()


def bytes_of(held: Iterable[Tensor]) -> int:
    """Of the memory behind tensors, each piece once."""
    return sum(storage.nbytes() for storage in _storages(held).values())


class Live(TorchDispatchMode):
    """Counts the bytes of storages while they live.

    Args:
        there: what is there already, and is not counted.

    Attributes:
        peak: the most so far.
    """

    def __init__(self, there: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.peak = self._held = 0
        self._there = _storages(there)
        self._watched: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, and watch what it made."""
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage())
        return made

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._watched or key in self._there:
            return

        def gone(_: object) -> None:
            del self._watched[key]
            self._held -= size

        self._watched[key] = weakref.ref(storage, gone)
        self._held += size
        self.peak = max(self.peak, self._held)


def _storages(held: Iterable[Tensor]) -> dict[int, torch.UntypedStorage]:
    """By identity, as there is no address without values: one stays one object while it lives."""
    return {id(storage): storage for storage in (tensor.untyped_storage() for tensor in held)}


def _stand_in(tensor: Tensor, dtype: torch.dtype, mode: FakeTensorMode) -> Tensor:
    kept = dtype if tensor.is_floating_point() else tensor.dtype
    with mode:
        made = torch.empty(tensor.shape, dtype=kept, device=tensor.device)
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(made, requires_grad=tensor.requires_grad)
    return made
