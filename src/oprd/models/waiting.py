"""Frozen weights that wait in the CPU's memory, and are on the device only while they are read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn

from oprd.core.output.head import LMHead


class Waiting:
    """A frozen model's weights on their two places.

    Nothing is copied back: weights that do not change are left on the CPU and let go on the device.

    Args:
        model: on the CPU, or taken there.
        device: where it reads.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        model.to("cpu")
        self._model, self._device = model, device

    @contextmanager
    def there(self) -> Iterator[None]:
        """On the device; entered while nothing else changes the model."""
        tensors = {id(t): t for t in chain(self._model.parameters(), self._model.buffers())}
        waiting = {key: tensor.data for key, tensor in tensors.items()}
        try:
            for tensor in tensors.values():
                tensor.data = self._moved(tensor.data)
            yield
        finally:
            for key, tensor in tensors.items():
                tensor.data = waiting[key]

    def kept(self, head: LMHead) -> LMHead:
        """A head of the model on the device, for as long as someone holds it."""
        return replace(
            head,
            weight=self._moved(head.weight),
            bias=None if head.bias is None else self._moved(head.bias),
        )

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, non_blocking=True)
