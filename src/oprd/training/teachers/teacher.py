"""A frozen teacher in a run: what it reads, which layers meet, through which bridges, and where.

Letters: N supervised rows, M response rows, D width.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel
from trl.models.utils import prepare_deepspeed, prepare_fsdp

from oprd.core.bridge.space import BridgeSpace
from oprd.core.layers import LayerPair
from oprd.core.output.head import LMHead
from oprd.models.heads import lm_head, whole
from oprd.models.reading import Reading, View, base_forward, read
from oprd.models.shared_base import teacher_adapter_active
from oprd.models.views import Views
from oprd.training.batch import MicroBatch

Context = Callable[..., AbstractContextManager[Any]]


class TeacherReading(NamedTuple):
    """What a teacher brings to a micro-batch.

    Attributes:
        reading: its rows, those of the states projected where there is a bridge.
        head: its LM head without a graph, if the last states were asked for.
    """

    reading: Reading
    head: LMHead | None


class Teacher:
    """A teacher of the student's own tokens, wherever its weights are.

    Args:
        model: not wrapped; the student itself where the teacher is an adapter on its base.
        pairs: which of the student's layers meet which of its own; may be set later.
        shares_base: whether it is such an adapter.
        keep: whether a reading is kept for further updates on the same rollouts.
        autocast: entered while it reads. Accelerate's own is on the models' forward, which is not
            what runs here.
        timed: likewise.

    Attributes:
        spaces: the bridges' spaces by name, once they are there.
        mean_squares: of its states by student layer, by the bridge's name, "" without one; once
            they are measured, see `scales`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        pairs: Sequence[LayerPair] = (),
        *,
        shares_base: bool = False,
        keep: bool = True,
        autocast: Context = nullcontext,
        timed: Context = nullcontext,
    ) -> None:
        self.model, self.shares_base = model, shares_base
        self.pairs: tuple[LayerPair, ...] = tuple(pairs)
        self.spaces: Mapping[str, BridgeSpace] = {}
        self.mean_squares: dict[str, dict[int, float]] = {}
        self._keep, self._autocast, self._timed = keep, autocast, timed
        self._wrapper: nn.Module | None = None
        self._redirect: Callable[..., Any] | None = None

    def place(self, accelerator: Accelerator, redirect: Callable[..., Any]) -> nn.Module | None:
        """Place it as the student is placed, sharded where that is.

        Args:
            accelerator: what places it.
            redirect: TRL's forward redirection, through which sharded weights are materialised.

        Returns:
            the model as it was wrapped; None where the student's base serves it.
        """
        if self.shares_base:
            return None
        if getattr(accelerator.state, "deepspeed_plugin", None) is not None:
            wrapper = prepare_deepspeed(self.model, accelerator)
        elif getattr(accelerator.state, "fsdp_plugin", None) is not None:
            wrapper = cast(nn.Module, prepare_fsdp(self.model, accelerator))
        else:
            wrapper = accelerator.prepare_model(self.model, evaluation_mode=True)
        self._wrapper, self._redirect = wrapper, redirect
        self.model = accelerator.unwrap_model(wrapper)
        return wrapper

    def views(self, batch: MicroBatch) -> Views:
        """What it reads of a micro-batch: the student's own view, the very object, or its own.

        Its own are made ready with the rollouts, in `Rollouts.supervise`.
        """
        return batch.taught or Views((batch.view,))

    def read(
        self,
        student: nn.Module,
        batch: MicroBatch,
        *,
        states: bool,
        last: bool,
        space: BridgeSpace | None = None,
    ) -> TeacherReading:
        """Its rows of a micro-batch, without gradient; once for all updates on it where kept.

        Args:
            student: not wrapped, for a teacher on its base.
            batch: the micro-batch.
            states: whether the supervised rows of the paired layers are needed.
            last: whether the last layer's response rows and the LM head are.
            space: the bridge's, in which its states are kept.
        """
        wanted = (states, last)
        kept: tuple[tuple[bool, bool], Reading] | None = batch.kept.pop("teacher", None)
        # One that was read for less, in a stage with other terms, is read anew.
        if kept is not None and all(a <= b for a, b in zip(wanted, kept[0], strict=True)):
            wanted, reading = kept
        else:
            reading = self._read(student, batch, states=states, last=last, space=space)
        if batch.comes_again and self._keep:
            batch.kept["teacher"] = wanted, reading
        with torch.no_grad(), self._timed(), self._autocast():
            own = student if self.shares_base else self.model
            head = whole(lm_head(own)) if last else None
        # The comparison drops each layer's rows when it is done with them.
        return TeacherReading(reading._replace(states=dict(reading.states)), head)

    def _read(
        self,
        student: nn.Module,
        batch: MicroBatch,
        *,
        states: bool,
        last: bool,
        space: BridgeSpace | None,
    ) -> Reading:
        layers = sorted({pair.teacher for pair in self.pairs}) if states else []
        options: dict[str, Any] = {"last": last, "transform": space and space.teacher}
        with torch.no_grad(), self._timed(), self._autocast():
            if self.shares_base:
                with teacher_adapter_active(student):
                    return self.views(batch).read(partial(_read, student, layers, options))
            if self._wrapper is not None:
                self._wrapper.eval()
                options["forward"] = self._forward
            return self.views(batch).read(partial(_read, self.model, layers, options))

    def _forward(self, model: nn.Module, *inputs: Tensor, **extra: Any) -> Any:
        assert self._redirect is not None
        return self._redirect(self._wrapper, model, partial(base_forward, model), *inputs, **extra)


def _read(
    model: nn.Module, layers: Sequence[int], options: Mapping[str, Any], view: View
) -> Reading:
    return read(model, view, layers, **options)
