"""A teacher that reads on an inference server: its states come back, and nothing else is here.

The server's last layer is before the final norm, this package's after it: the norm is applied here,
in float32. With a bridge a sequence's rows are projected as they arrive.

Letters: B sequences, T tokens of a view, N supervised rows, M response rows, D width.
"""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from oprd.core.capture import Transform, hidden_size, num_layers
from oprd.core.output.head import LMHead
from oprd.log import get_logger
from oprd.models.reader import Context, Reader
from oprd.models.reading import Reading, View
from oprd.models.tokenizers import find_tokenizer
from oprd.models.views import Views
from oprd.serving.checkpoint import Checkpoint, final_norm, head_of, skeleton, weights_of
from oprd.serving.client import StatesServer
from oprd.serving.probe import check_server

logger = get_logger(__name__)


class ServerPlace(Protocol):
    """The settings of a run that say where its teacher reads."""

    teacher_server_url: str | None
    teacher_server_folder: str | None
    teacher_server_timeout: float
    teacher_model_revision: str | None


class Wanted(NamedTuple):
    """What is asked of a sequence.

    Attributes:
        ids: [T].
        rows: [T] bool, the states that predict supervised tokens.
        response: [T] bool, those of which the last layer's are asked for.
    """

    ids: Tensor
    rows: Tensor
    response: Tensor


class ServedReader(Reader):
    """A model that reads on a server.

    Args:
        model: the skeleton.
        norm: its final norm, with weights.
        server: that serves it.
        checkpoint: of it.
        timed: see `Reader`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        norm: nn.Module,
        server: StatesServer,
        checkpoint: Checkpoint,
        timed: Context,
    ) -> None:
        super().__init__(model, timed=timed)
        self._norm, self._server, self._checkpoint = norm, server, checkpoint
        self.weights = checkpoint.fingerprint(model)

    @classmethod
    def connect(cls, source: str, place: ServerPlace, timed: Context) -> "ServedReader":
        """Ask a server whether it serves a checkpoint, and be ready to read with it.

        Args:
            source: of the checkpoint, a folder or a hub id.
            place: of the server, and the checkpoint's revision.
            timed: see `Reader`.

        Raises:
            ConnectionError: it does not answer.
            ValueError: it serves another model, or this one's norm cannot be read.
            OSError: the checkpoint has not what is read here.
        """
        revision, folder = place.teacher_model_revision, str(place.teacher_server_folder)
        model, checkpoint = skeleton(source, revision), Checkpoint(source, revision)
        norm = copy.deepcopy(final_norm(model)).to_empty(device="cpu").float()
        norm.load_state_dict(weights_of(final_norm(model), model, checkpoint))
        url = str(place.teacher_server_url)
        asked = StatesServer(url, Path(folder), place.teacher_server_timeout)
        tokenizer = find_tokenizer(source, revision, {})
        dtype = check_server(asked, model, norm, checkpoint, tokenizer)
        cast(nn.Module, model).to(dtype)
        if asked.context is not None:
            model.config.get_text_config().max_position_embeddings = asked.context
        logger.info(f"{source} reads at {url}, as {asked.name}.")
        return cls(model, norm, asked, checkpoint, timed)

    @property
    def stays(self) -> bool:
        """Its weights are elsewhere."""
        return True

    def wait_on_cpu(self, device: torch.device) -> None:
        """It is not here."""

    def read(
        self,
        student: nn.Module,
        views: Views,
        layers: Sequence[int],
        *,
        last: bool = False,
        transform: Transform | None = None,
    ) -> Reading:
        """See `Reader.read`.

        Raises:
            ConnectionError: the server does not answer, or its states do not come.
            ValueError: they are not the states of these tokens.
            FloatingPointError: they are not finite.
        """
        with torch.no_grad(), self.timed():
            return views.read(lambda view: self._read(view, layers, last, transform))

    def head(self, student: nn.Module) -> LMHead:
        """The LM head of the checkpoint, where the student is."""
        head = head_of(self.model, self._checkpoint)
        place = next(student.parameters()).device, self.model.dtype
        bias = None if head.bias is None else head.bias.to(*place)
        return LMHead(head.weight.to(*place), bias, head.scale, head.softcap)

    def _read(
        self, view: View, layers: Sequence[int], last: bool, transform: Transform | None
    ) -> Reading:
        depth, device = num_layers(self.model), view.input_ids.device
        asked = sorted({*layers, depth} if last else set(layers))
        wanted = [own for own in _wanted(view, last) if len(own.ids)]

        # In a thread of its own, in which autograd is on.
        @torch.no_grad()
        def arrived(own: Wanted, states: Tensor) -> tuple[dict[int, Tensor], Tensor | None]:
            by_layer = dict(zip(asked, states.unbind(1), strict=True))
            if depth in by_layer:
                by_layer[depth] = self._norm(by_layer[depth].float()).to(states.dtype)
            kept = {}
            for layer in layers:
                rows = by_layer[layer][own.rows].to(device)
                kept[layer] = transform(layer, rows) if transform else rows
            return kept, by_layer[depth][own.response].to(device) if last else None

        if wanted:
            sequences = [own.ids.tolist() for own in wanted]
            read = self._server.states(
                sequences, asked, lambda number, states: arrived(wanted[number], states)
            )
        else:
            nothing = torch.zeros(0, dtype=torch.long)
            none = torch.zeros(0, len(asked), hidden_size(self.model), dtype=self.model.dtype)
            read = [arrived(Wanted(nothing, nothing.bool(), nothing.bool()), none)]
        states = {layer: torch.cat([kept[layer] for kept, _ in read]) for layer in layers}
        final = [own for _, own in read if own is not None]
        return Reading(states, torch.cat(final) if last else None)


def _wanted(view: View, last: bool) -> Iterator[Wanted]:
    """Of each sequence what must be read, without the padding and what stands behind it."""
    tensors = view.input_ids, view.attention_mask, view.rows, view.response
    for ids, real, rows, response in zip(*(t.cpu() for t in tensors), strict=True):
        kept = real.bool()
        ids, rows, response = ids[kept], rows[kept], response[kept] & last
        looked_at = (rows | response).nonzero()
        end = int(looked_at[-1]) + 1 if len(looked_at) else 0
        yield Wanted(ids[:end], rows[:end], response[:end])
