"""A teacher in a run: what it reads, which layers meet, and through which bridges.

Letters: N supervised rows, M response rows, D width.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import nn

from oprd.core.bridge.space import BridgeSpace
from oprd.core.capture import hidden_size
from oprd.core.layers import LayerPair
from oprd.core.output.head import LMHead
from oprd.models.batch import MicroBatch
from oprd.models.reader import Reader
from oprd.models.reading import Reading
from oprd.models.reference import Reference
from oprd.models.views import Views


class TeacherReading(NamedTuple):
    """What a teacher brings to a micro-batch.

    Attributes:
        reading: its rows, those of the states projected where there is a bridge.
        head: its LM head without a graph, if the last states were asked for.
    """

    reading: Reading
    head: LMHead | None


class Teacher:
    """A teacher of the student's own tokens.

    Args:
        reader: the model, wherever its weights are.
        pairs: which of the student's layers meet which of its own; may be set later.
        keep: whether a reading is kept for further updates on the same rollouts.
        reference: what moves the targets on from its states; None for the states themselves.
        name: among several teachers; empty for the only one.

    Attributes:
        spaces: the bridges' spaces by name, once they are there.
        mean_squares: of its states by student layer, by the bridge's name, "" without one; once
            they are measured, see `scales`.
    """

    def __init__(
        self,
        reader: Reader,
        pairs: Sequence[LayerPair] = (),
        *,
        keep: bool = True,
        reference: Reference | None = None,
        name: str = "",
    ) -> None:
        self.reader, self.name = reader, name
        self.pairs: tuple[LayerPair, ...] = tuple(pairs)
        self.spaces: Mapping[str, BridgeSpace] = {}
        self.mean_squares: dict[str, dict[int, float]] = {}
        self.reference = reference
        self._keep = keep

    def views(self, batch: MicroBatch) -> Views:
        """What it reads of a micro-batch: the student's own view, the very object, or its own.

        Its own are made ready with the rollouts, in `Rollouts.supervise`.
        """
        own = batch.taught.get(self.name)
        return Views((batch.view,)) if own is None else own

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
        wanted, key = (states, last), f"teacher{self.name}"
        kept: tuple[tuple[bool, bool], Reading] | None = batch.kept.pop(key, None)
        # One that was read for less, in a stage with other terms, is read anew.
        if kept is not None and all(a <= b for a, b in zip(wanted, kept[0], strict=True)):
            wanted, reading = kept
        else:
            reading = self._read(student, batch, states=states, last=last, space=space)
        if batch.comes_again and self._keep:
            batch.kept[key] = wanted, reading
        # The comparison drops each layer's rows when it is done with them.
        reading = reading._replace(states=dict(reading.states))
        return TeacherReading(reading, self.reader.head(student) if last else None)

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
        transform, views = space and space.teacher, self.views(batch)
        if not len(batch.positions):
            model = self.reader.model
            none = batch.positions.new_zeros(0, hidden_size(model), dtype=model.dtype)
            rows = {layer: transform(layer, none) if transform else none for layer in layers}
            return Reading(rows, none if last else None)
        found = self.reader.read(student, views, layers, last=last, transform=transform)
        if self.reference is None or not layers:
            return found
        # Output terms compare distributions with the teacher's own.
        return found._replace(states=self.reference.beyond(student, views, found.states))
