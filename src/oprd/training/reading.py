"""Both models read a micro-batch: one forward pass each, and only the rows that terms need.

Letters: N rows that predict supervised positions, M rows that predict response tokens, D width.
"""

from collections.abc import Callable, MutableMapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from accelerate import Accelerator
from torch import Tensor, nn

from oprd.core.capture import Transform, capture_states
from oprd.core.head import LMHead
from oprd.training.batch import MicroBatch
from oprd.training.forward import base_forward
from oprd.training.heads import lm_head, whole
from oprd.training.teacher import teacher_adapter_active


class Reading(NamedTuple):
    """What a forward pass left.

    Attributes:
        states: [N, D] by layer at the supervised positions, or what the transform made of them.
        last: [M, D] after the final norm at all response tokens, if asked for.
    """

    states: MutableMapping[int, Tensor]
    last: Tensor | None = None


def read(
    model: nn.Module,
    batch: MicroBatch,
    layers: Sequence[int],
    *,
    last: bool = False,
    transform: Transform | None = None,
    forward: Callable[..., Any] = base_forward,
) -> Reading:
    """Run a model's base over a micro-batch and keep rows of its states.

    Args:
        model: not wrapped for distribution.
        batch: what it reads.
        layers: whose rows at the supervised positions are kept; may be empty.
        last: also keep the last layer's rows at all response tokens.
        transform: see `oprd.core.capture.capture_states`; for `layers` alone.
        forward: runs the model; called as `base_forward` is.
    """
    states: MutableMapping[int, Tensor] = {}
    final: MutableMapping[int, Tensor] = {}
    # Closed before backward: gradient checkpointing runs the forward pass again.
    with ExitStack() as captures:
        if layers:
            rows = batch.predicting(batch.positions)
            states = captures.enter_context(capture_states(model, layers, rows, transform))
        if last:
            rows = batch.predicting(batch.response)
            final = captures.enter_context(capture_states(model, "last", rows))
        forward(model, batch.input_ids, batch.attention_mask, **batch.extra)
    return Reading(states, *final.values())


class TeacherReader:
    """The frozen teacher as it reads rollouts, wherever its weights are.

    Args:
        model: the prepared teacher; None where it is an adapter on the student's own base.
        accelerator: what prepared it.
        redirect: TRL's forward redirection, through which sharded weights are materialised.
    """

    def __init__(
        self, model: nn.Module | None, accelerator: Accelerator, redirect: Callable[..., Any]
    ) -> None:
        self._wrapper = model
        self._model = None if model is None else accelerator.unwrap_model(model)
        self._redirect = redirect

    def read(
        self,
        student: nn.Module,
        batch: MicroBatch,
        layers: Sequence[int],
        *,
        last: bool = False,
        transform: Transform | None = None,
    ) -> Reading:
        """The teacher's rows of a micro-batch; the caller turns gradients off.

        Args:
            student: not wrapped, for a teacher on its base.
            batch: what it reads.
            layers: teacher layers, see `read`.
            last: see `read`.
            transform: see `read`.
        """
        if self._wrapper is None or self._model is None:
            with teacher_adapter_active(student):
                return read(student, batch, layers, last=last, transform=transform)
        self._wrapper.eval()
        return read(
            self._model, batch, layers, last=last, transform=transform, forward=self._forward
        )

    def head(self, student: nn.Module) -> LMHead:
        """The teacher's LM head, without a graph."""
        return whole(lm_head(student if self._model is None else self._model))

    def _forward(self, model: nn.Module, *inputs: Tensor, **extra: Any) -> Any:
        return self._redirect(self._wrapper, model, partial(base_forward, model), *inputs, **extra)
