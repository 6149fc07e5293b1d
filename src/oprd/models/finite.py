"""Whether a model's weights and their gradients are finite."""

from collections.abc import Iterable

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
    for name, tensor in tensors:
        held = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        if not (held.is_meta or held.isfinite().all()):
            return name
    return None
