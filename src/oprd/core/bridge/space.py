"""Both models' rows in the space of a bridge, projected as the models reach their layers.

Letters: N rows, S student width, H teacher width, R rank of a pair.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from oprd.core.bridge.bridge import Bridge
from oprd.core.layers import LayerPair


class BridgeSpace:
    """A bridge in use: of a teacher's row only its R numbers are kept.

    Args:
        bridge: which is moved to the device, in float32 or in the student's dtype if that is wider.
        pairs: the layer pairs that are compared, all of them in the bridge.
        device: where the student is.
        dtype: of the student.
    """

    def __init__(
        self, bridge: Bridge, pairs: Sequence[LayerPair], device: torch.device, dtype: torch.dtype
    ) -> None:
        self.bridge = bridge.to(device, torch.promote_types(dtype, torch.float32))
        # Rows of both models go by the student's layer here.
        self.pairs = tuple(LayerPair(pair.student, pair.student) for pair in pairs)
        self._students: dict[int, list[int]] = {}
        for pair in pairs:
            self._students.setdefault(pair.teacher, []).append(pair.student)

    def teacher(self, layer: int, rows: Tensor) -> Tensor:
        """Rows [N, H] of a teacher layer for each student layer that meets it, [N, ΣR]."""
        projected = [self.bridge.project_teacher(s, rows) for s in self._students[layer]]
        return projected[0] if len(projected) == 1 else torch.cat(projected, dim=1)

    def by_student_layer(self, states: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """What `teacher` made of each teacher layer, as [N, R] by student layer."""
        return {
            student: rows
            for layer, projected in states.items()
            for student, rows in zip(
                self._students[layer],
                projected.split([self.bridge.rank_of(s) for s in self._students[layer]], dim=1),
                strict=True,
            )
        }

    def student(self, layer: int, rows: Tensor) -> Tensor:
        """Rows [N, S] of a student layer as [N, R], with a graph to them."""
        return self.bridge.project_student(layer, rows)
