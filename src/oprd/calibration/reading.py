"""Both models' states at the supervised positions of rollouts: bases only, no LM head is called.

Letters: B sequences, N rows, D width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from oprd.calibration.gradients import output_gradients
from oprd.calibration.selection import Selection, Taught
from oprd.core.bridge import BridgeFitter
from oprd.core.bridge.statistics import NonFiniteRowError
from oprd.core.layers import LayerPair
from oprd.models.generate import evaluation_mode, left_pad
from oprd.models.reading import View, read

# Entered while a teacher reads.
Active = Callable[[], AbstractContextManager[Any]]


class PairedRows(NamedTuple):
    """Rows [N, D] by layer: row n of every layer belongs to one position of one rollout.

    Attributes:
        student: by student layer.
        teacher: by teacher layer.
        gradients: of the teacher's output by teacher layer, where they were asked for.
    """

    student: dict[int, Tensor]
    teacher: dict[int, Tensor]
    gradients: dict[int, Tensor] | None


class RowReader:
    """Runs both models over rollouts.

    Args:
        student: a causal language model; its mode is left as it was.
        teacher: likewise; the student itself where its base serves both.
        pairs: the layers that are read.
        gradient_seed: also read ∂ log q(y)/∂h at y ~ q, with y drawn from this seed; None not to.
        teacher_active: entered while the teacher reads.
    """

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        pairs: Sequence[LayerPair],
        gradient_seed: int | None = None,
        teacher_active: Active = nullcontext,
    ) -> None:
        self._student, self._teacher = student, teacher
        self._teacher_active = teacher_active
        self._student_layers = [pair.student for pair in pairs]
        self._teacher_layers = sorted({pair.teacher for pair in pairs})
        self._gradient_seed = gradient_seed

    @property
    def device(self) -> torch.device:
        """Where the student's rows are."""
        return self._student.device

    def __call__(self, batch: Sequence[Selection]) -> PairedRows:
        """The rows of a batch, sequence by sequence, in the models' dtypes."""
        view = view_of(batch)
        student = rows_of(self._student, view, self._student_layers)
        if batch[0].taught is not None:
            view = view_of(batch, of_teacher=True)
        with self._teacher_active():
            if self._gradient_seed is None:
                return PairedRows(student, rows_of(self._teacher, view, self._teacher_layers), None)
            with evaluation_mode(self._teacher):
                seed = self._gradient_seed + batch[0].rollout.prompt
                generator = torch.Generator().manual_seed(seed)
                teacher, gradients = output_gradients(
                    self._teacher, self._teacher_layers, view, generator
                )
        return PairedRows(student, teacher, gradients)


def rows_of(model: Any, view: View, layers: Sequence[int]) -> dict[int, Tensor]:
    """A model's supervised rows [N, D] by layer; its mode is left as it was."""
    with torch.no_grad(), evaluation_mode(model):
        return dict(read(model, view.to(model.device), layers).states)


@contextmanager
def naming_prompts(batch: Sequence[Selection]) -> Iterator[None]:
    """Turn a row that is not finite into an error that names its prompt."""
    try:
        yield
    except NonFiniteRowError as error:
        counts = torch.tensor([selection.rows for selection in batch]).cumsum(0)
        place = int((counts <= error.row).sum())
        selection = batch[place]
        row = error.row - int(counts[place]) + selection.rows
        token = int(selection.positions.nonzero()[row])
        raise FloatingPointError(
            f"{error.source} layer {error.layer} is not finite where it predicts response token "
            f"{token} of {selection.rollout.name}: mend the {error.source.split()[0]}'s weights, "
            "or read it in a wider dtype."
        ) from error


def check_finite(source: str, rows: Mapping[int, Tensor]) -> None:
    """Refuse rows [N, D] by layer of which one is not finite, with a `NonFiniteRowError`."""
    for layer, states in rows.items():
        if not (finite := states.isfinite().all(dim=1)).all():
            raise NonFiniteRowError(source, layer, int((~finite).nonzero()[0]))


def update(fitter: BridgeFitter, rows: PairedRows, batch: Sequence[Selection]) -> None:
    """Add a batch's rows to a fitter.

    Raises:
        FloatingPointError: a row is not finite; the message names its prompt.
    """
    with naming_prompts(batch):
        fitter.update(rows.student, rows.teacher, teacher_gradients=rows.gradients)


def view_of(batch: Sequence[Selection], *, of_teacher: bool = False) -> View:
    """What both models read of a batch, on the CPU; a teacher may read tokens of its own."""
    if of_teacher and (taught := [s.taught for s in batch if s.taught is not None]):
        return _own_view(taught, [selection.positions for selection in batch])
    prompts = left_pad([selection.rollout.prompt_ids for selection in batch], 0)
    responses = [torch.tensor(selection.rollout.completion_ids) for selection in batch]
    masks = [torch.ones_like(ids) for ids in responses]
    positions = pad_sequence([selection.positions for selection in batch], batch_first=True)
    written = pad_sequence(masks, batch_first=True)
    return View.of_rollouts(
        torch.cat([prompts["input_ids"], pad_sequence(responses, batch_first=True)], dim=1),
        torch.cat([prompts["attention_mask"], written], dim=1),
        written.bool(),
        positions,
    )


def _own_view(taught: Sequence[Taught], positions: Sequence[Tensor]) -> View:
    """A teacher's view of its own tokens, with the states that meet the student's there."""
    prompts = left_pad([own.prompt_ids for own in taught], 0)
    # The column behind the last token is not read: before it stands the state after that token.
    responses = [torch.tensor([*own.response.ids, 0], dtype=torch.long) for own in taught]
    masks = [(torch.arange(len(ids)) < len(ids) - 1).long() for ids in responses]
    rows = [own.response.rows(of) for own, of in zip(taught, positions, strict=True)]
    written = pad_sequence(masks, batch_first=True)
    return View.of_rollouts(
        torch.cat([prompts["input_ids"], pad_sequence(responses, batch_first=True)], dim=1),
        torch.cat([prompts["attention_mask"], written], dim=1),
        written.bool(),
        pad_sequence(rows, batch_first=True),
    )
