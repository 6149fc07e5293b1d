"""Whether a model's weights are finite."""

from torch import nn
from torch.distributed.tensor import DTensor


def first_broken_parameter(model: nn.Module) -> str | None:
    """The name of the first parameter with a value that is not finite, of those held here."""
    for name, parameter in model.named_parameters():
        held = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        if not (held.is_meta or held.isfinite().all()):
            return name
    return None
