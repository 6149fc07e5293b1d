"""How large a teacher's states are, measured once, on a run's first rollouts.

σ_l² = mean of h_teacher² over the width and all supervised positions of a generation batch
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from oprd.core.bridge.space import BridgeSpace
from oprd.models.batch import MicroBatch
from oprd.models.teacher import Teacher

# What a run's record calls them: by the name of a bridge, "" for states as they are.
MEAN_SQUARES = "layer_mean_squares"


@torch.no_grad()
def measure_mean_squares(
    teacher: Teacher,
    student: nn.Module,
    batches: Iterable[MicroBatch],
    summed: Callable[[Tensor], Tensor],
    space: BridgeSpace | None = None,
) -> dict[int, float] | None:
    """σ_l² by student layer; None where no position of any process is supervised.

    Args:
        teacher: in its place.
        student: not wrapped, for a teacher on its base.
        batches: this process's part of a generation batch.
        summed: over processes.
        space: of the bridge through which states are compared.

    Raises:
        FloatingPointError: a state is not finite.
    """
    pairs = teacher.pairs if space is None else space.pairs
    total = torch.zeros(len(pairs) + 1, device=next(student.parameters()).device)
    for batch in batches:
        states = teacher.read(student, batch, states=True, last=False, space=space).reading.states
        by_layer = states if space is None else space.by_student_layer(states)
        rows = [by_layer[pair.teacher].float() for pair in pairs]
        squares = [row.square().mean(dim=-1).sum().to(total) for row in rows]
        total += torch.stack([*squares, total.new_tensor(float(len(rows[0])))])
    *squares, count = summed(total).tolist()
    if count == 0:
        return None
    for pair, square in zip(teacher.pairs, squares, strict=True):
        if not math.isfinite(square):
            raise FloatingPointError(
                f"the teacher's states at layer {pair.teacher} are not finite on the first "
                "rollouts, or their squares are beyond float32."
            )
    # States that are all zero have no size: their error stays as it is.
    return {pair.student: s / count or 1.0 for pair, s in zip(pairs, squares, strict=True)}


def recorded_mean_squares(record: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """What a run measured, by the name of a bridge; nothing where it did not."""
    recorded: Mapping[str, Mapping[str, float]] = record.get(MEAN_SQUARES, {})
    return {
        name: {int(layer): value for layer, value in by_layer.items()}
        for name, by_layer in recorded.items()
    }
