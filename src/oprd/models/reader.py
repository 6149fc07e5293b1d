"""A frozen model that reads rollouts, wherever its weights are.

Letters: N supervised rows, M response rows, D width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from oprd.core.capture import Transform
from oprd.core.output.head import LMHead
from oprd.models.generate import evaluation_mode
from oprd.models.heads import lm_head, whole
from oprd.models.reading import Reading, View, base_forward, read
from oprd.models.shared_base import Active
from oprd.models.views import Views
from oprd.models.waiting import Waiting

Context = Callable[..., AbstractContextManager[Any]]


class Reader:
    """A model that reads without gradient.

    Args:
        model: not wrapped; the student itself where that one's base serves it.
        active: entered with the model while it is another's adapter that reads with it; None for a
            model of its own.
        apart: whether such a model is not the student, but one that several teachers share.
        autocast: entered while it reads. Accelerate's own is on the models' forward, which is not
            what runs here.
        timed: likewise.

    Attributes:
        gathers: whether its weights are in pieces, which all processes gather while it reads.
        weights: the fingerprint of weights that are elsewhere, where it is known.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        active: Active | None = None,
        *,
        apart: bool = False,
        autocast: Context = nullcontext,
        timed: Context = nullcontext,
    ) -> None:
        self.model, self.active, self._apart = model, active, apart
        self._autocast, self.timed = autocast, timed
        self._wrapper: nn.Module | None = None
        self._redirect: Callable[..., Any] | None = None
        self._waits: Waiting | None = None
        # Weights that it has in common with the student, once it has read.
        self._shared: list[nn.Parameter] | None = None
        self.gathers = False
        self.weights: str | None = None

    @property
    def on_student(self) -> bool:
        """Whether the student's base serves it."""
        return self.active is not None and not self._apart

    @property
    def stays(self) -> bool:
        """Whether it has no place of its own in the run's processes."""
        return self.on_student

    def wait_on_cpu(self, device: torch.device) -> None:
        """Be on the device only while it reads; where the student's base serves, it stays there."""
        if not self.on_student:
            self._waits = Waiting(self.model, device)

    def there(self) -> AbstractContextManager[None]:
        """Entered while others read with its model: on the device, where it waits elsewhere."""
        return nullcontext() if self._waits is None else self._waits.there()

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

        Raises:
            ValueError: a weight that it shares with the student trains.
        """
        self._check_shared(student)
        forward = None
        if self._wrapper is not None:
            self._wrapper.eval()
            forward = self._forward

        def one(view: View) -> Reading:
            return read(
                self.own(student), view, layers, last=last, transform=transform, forward=forward
            )

        with self.there(), self.reading(student):
            return views.read(one)

    def head(self, student: nn.Module) -> LMHead:
        """Its LM head without a graph, gathered where it is sharded."""
        with self.reading(student):
            head = whole(lm_head(self.own(student)))
        return head if self._waits is None else self._waits.kept(head)

    def own(self, student: nn.Module) -> nn.Module:
        """The model that reads: the student where its base serves."""
        return student if self.on_student else self.model

    @contextmanager
    def reading(self, student: nn.Module) -> Iterator[None]:
        """Entered while it reads."""
        activated = nullcontext() if self.active is None else self.active(self.own(student))
        with torch.no_grad(), self.timed(), self._autocast(), activated:
            yield

    @contextmanager
    def writing(self, student: nn.Module) -> Iterator[None]:
        """Entered while it writes, which is no time of reading."""
        model = self.own(student)
        activated = nullcontext() if self.active is None else self.active(model)
        with self.there(), torch.no_grad(), self._autocast(), activated, evaluation_mode(model):
            yield

    def _check_shared(self, student: nn.Module) -> None:
        """Refuse weights that were frozen when a copy was made, and are not any more."""
        if self._shared is None:
            own = {id(p) for p in student.parameters()}
            theirs = () if self.own(student) is student else self.model.parameters()
            self._shared = [p for p in theirs if id(p) in own]
        if any(parameter.requires_grad for parameter in self._shared):
            raise ValueError(
                "weights of the student train that were frozen when its teacher was made of it, "
                "which has the very same: let them train before the trainer is made, or set "
                "teacher_offload='cpu', with which the teacher has weights of its own."
            )

    def _forward(self, model: nn.Module, *inputs: Tensor, **extra: Any) -> Any:
        assert self._redirect is not None
        return self._redirect(self._wrapper, model, partial(base_forward, model), *inputs, **extra)
