"""A frozen model that reads rollouts, wherever its weights are.

Letters: N supervised rows, M response rows, D width.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from oprd.core.capture import Transform
from oprd.core.output.head import LMHead
from oprd.models.heads import lm_head, whole
from oprd.models.reading import Reading, View, base_forward, read
from oprd.models.shared_base import Active
from oprd.models.views import Views

Context = Callable[..., AbstractContextManager[Any]]


class Reader:
    """A model that reads without gradient.

    Args:
        model: not wrapped; the student itself where that one's base serves it.
        active: entered with the student while its base serves; None for a model of its own.
        autocast: entered while it reads. Accelerate's own is on the models' forward, which is not
            what runs here.
        timed: likewise.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        active: Active | None = None,
        *,
        autocast: Context = nullcontext,
        timed: Context = nullcontext,
    ) -> None:
        self.model, self.active = model, active
        self._autocast, self._timed = autocast, timed
        self._wrapper: nn.Module | None = None
        self._redirect: Callable[..., Any] | None = None

    def placed(
        self, wrapper: nn.Module, model: PreTrainedModel, redirect: Callable[..., Any]
    ) -> None:
        """Read through what the model was wrapped in from here on.

        Args:
            wrapper: the model as it was placed, sharded where that is.
            model: not wrapped.
            redirect: TRL's forward redirection, through which sharded weights are materialised.
        """
        self.model, self._wrapper, self._redirect = model, wrapper, redirect

    def read(
        self,
        student: nn.Module,
        views: Views,
        layers: Sequence[int],
        *,
        last: bool = False,
        transform: Transform | None = None,
    ) -> Reading:
        """Rows of its states, over all views.

        Args:
            student: not wrapped, for a reader on its base.
            views: what it reads.
            layers: whose supervised rows are kept; may be empty.
            last: whether the last layer's response rows are.
            transform: see `oprd.models.reading.read`.
        """
        forward = None
        if self._wrapper is not None:
            self._wrapper.eval()
            forward = self._forward

        def one(view: View) -> Reading:
            return read(
                self._own(student), view, layers, last=last, transform=transform, forward=forward
            )

        with torch.no_grad(), self._timed(), self._autocast(), self._activated(student):
            return views.read(one)

    def head(self, student: nn.Module) -> LMHead:
        """Its LM head without a graph, gathered where it is sharded."""
        with torch.no_grad(), self._timed(), self._autocast(), self._activated(student):
            return whole(lm_head(self._own(student)))

    def _own(self, student: nn.Module) -> nn.Module:
        return self.model if self.active is None else student

    def _activated(self, student: nn.Module) -> AbstractContextManager[None]:
        return nullcontext() if self.active is None else self.active(student)

    def _forward(self, model: nn.Module, *inputs: Tensor, **extra: Any) -> Any:
        assert self._redirect is not None
        return self._redirect(self._wrapper, model, partial(base_forward, model), *inputs, **extra)
