"""One reading of both models over rollouts, and what is kept of it.

Letters: N rows of a batch, K response tokens, D width.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from oprd.calibration.reading import PairedRows, check_finite, naming_prompts, rows_of, view_of
from oprd.calibration.rollouts import Rollout
from oprd.calibration.selection import Selection, Teach, draw_rows, select_rows
from oprd.core.capture import num_layers
from oprd.core.cka import MIN_ROWS
from oprd.core.positions import PositionSpec

# What is read at most. Rows of all layers of a batch are in memory together.
MAX_ROWS = 16_384


class Observer(Protocol):
    """Takes what it needs from every batch of one reading."""

    def add(self, batch: Sequence[Selection], rows: PairedRows) -> None:
        """Rows [N, D] of all layers of both models, in the order of the batch's positions."""
        ...


@dataclass(frozen=True)
class Plan:
    """Which positions are read, and which of them are supervised.

    Attributes:
        read: of each rollout; all response tokens, or a draw of them.
        supervised: those of them that are supervised, of each rollout that has any.
        shared: the share of response tokens whose states meet one of the teacher's.
    """

    read: Sequence[Selection]
    supervised: Sequence[Selection]
    shared: float

    @classmethod
    def of(
        cls,
        rollouts: Sequence[Rollout],
        positions: PositionSpec,
        position_k: int,
        seed: int,
        teach: Teach = None,
    ) -> "Plan":
        """Plan to read rollouts, by a teacher of other tokens as `teach` says.

        Raises:
            ValueError: there is too little to go by.
        """
        met = select_rows(rollouts, "all", 1, teach=teach)
        read = draw_rows(met, MAX_ROWS, seed)
        asked = positions_by_prompt(select_rows(rollouts, positions, position_k))
        both = [
            replace(selection, positions=selection.positions & asked[selection.rollout.prompt])
            for selection in read
            if selection.rollout.prompt in asked
        ]
        supervised = [selection for selection in both if selection.positions.any()]
        rows = sum(selection.rows for selection in supervised)
        if len(supervised) < 2 or rows < MIN_ROWS:
            raise ValueError(
                f"{len(supervised)} of {len(rollouts)} rollouts have supervised positions, {rows} "
                f"in all, and an inspection needs 2 rollouts and {MIN_ROWS} positions: add "
                "prompts, or look whether the student answers them at all (rollouts.jsonl)."
            )
        written = sum(len(rollout.completion_ids) for rollout in rollouts)
        return cls(read, supervised, sum(selection.rows for selection in met) / written)


def read_once(
    student: Any,
    teacher: Any,
    batches: Iterable[Sequence[Selection]],
    observers: Sequence[Observer],
    advance: Callable[[int], None],
) -> None:
    """Run both models over every batch, and show all layers' rows to the observers.

    Args:
        student: a causal language model; its mode is left as it was.
        teacher: likewise; it reads tokens of its own where the batches say which.
        batches: of positions to read.
        observers: what is kept is theirs.
        advance: called with the number of rollouts that are done.

    Raises:
        FloatingPointError: a row is not finite; the message names its prompt.
    """
    for batch in batches:
        views = view_of(batch), view_of(batch, of_teacher=True)
        rows = PairedRows(_all_rows(student, views[0]), _all_rows(teacher, views[1]), None)
        with naming_prompts(batch):
            check_finite("student", rows.student)
            check_finite("teacher", rows.teacher)
        for observer in observers:
            observer.add(batch, rows)
        advance(len(batch))


class DrawnRows:
    """A draw of supervised rows, of all layers, kept whole.

    Args:
        supervised: what is drawn from.
        most: how many rows.
        seed: of the draw.
    """

    def __init__(self, supervised: Sequence[Selection], most: int, seed: int) -> None:
        self._chosen = positions_by_prompt(draw_rows(supervised, most, seed))
        self._student: list[dict[int, Tensor]] = []
        self._teacher: list[dict[int, Tensor]] = []

    def add(self, batch: Sequence[Selection], rows: PairedRows) -> None:
        """See `Observer`."""
        index = chosen_rows(batch, self._chosen)
        for kept, found in ((self._student, rows.student), (self._teacher, rows.teacher)):
            kept.append({layer: taken(states, index) for layer, states in found.items()})

    @property
    def student(self) -> dict[int, Tensor]:
        """[N, D] by layer."""
        return _joined(self._student)

    @property
    def teacher(self) -> dict[int, Tensor]:
        """[N, D] by layer, row n at the position of the student's row n."""
        return _joined(self._teacher)


def positions_by_prompt(selections: Iterable[Selection]) -> dict[int, Tensor]:
    """[K] bool by the number of the rollout's prompt."""
    return {selection.rollout.prompt: selection.positions for selection in selections}


def chosen_rows(batch: Sequence[Selection], chosen: Mapping[int, Tensor]) -> Tensor:
    """Indices among the N rows of a batch of those at chosen positions."""
    marks = [
        chosen[selection.rollout.prompt][selection.positions]
        if selection.rollout.prompt in chosen
        else torch.zeros(selection.rows, dtype=torch.bool)
        for selection in batch
    ]
    return torch.cat(marks).nonzero()[:, 0]


def taken(states: Tensor, index: Tensor) -> Tensor:
    """Rows at indices, where there is float64: on CUDA, or else on the CPU."""
    rows = states[index.to(states.device)]
    return rows if rows.device.type == "cuda" else rows.cpu()


def _all_rows(model: Any, view: Any) -> dict[int, Tensor]:
    return rows_of(model, view, range(1, num_layers(model) + 1))


def _joined(parts: Sequence[Mapping[int, Tensor]]) -> dict[int, Tensor]:
    return {layer: torch.cat([part[layer] for part in parts]) for layer in parts[0]}
