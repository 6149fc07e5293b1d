"""Whether a model's weights and their gradients are finite."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def first_broken_parameter(model: nn.Module) -> str | None:
    """The name of the first parameter with a value that is not finite, of those held here."""
    return _first_broken(model.named_parameters())


def first_broken_gradient(model: nn.Module) -> str | None:
    """The name of the first parameter of whose gradient that holds."""
    named = model.named_parameters()
    return _first_broken((name, p.grad) for name, p in named if p.grad is not None)


def _first_broken(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Waits for each device once, whatever the number of tensors."""
    flags: dict[torch.device, list[tuple[int, str, Tensor]]] = {}
    for place, (name, tensor) in enumerate(tensors):
        held = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if not held.is_meta:
            flags.setdefault(held.device, []).append((place, name, held.isfinite().all()))
    broken: list[tuple[int, str]] = []
    for found in flags.values():
        finite = torch.stack([flag for *_, flag in found]).tolist()
        broken += [
            (place, name)
            for (place, name, _), is_finite in zip(found, finite, strict=True)
            if not is_finite
        ]
    return min(broken)[1] if broken else None
