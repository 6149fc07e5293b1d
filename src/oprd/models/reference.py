"""Past the teacher: targets on the line from a reference through it (RIDE, arXiv 2609.36484).

    h = h_T + (λ − 1)(h_T − h_ref)        at every layer, the reference in the teacher's view

λ = 1 is the teacher itself, λ > 1 goes on where it stopped, λ < 1 stays on the way to it. The
squared distance grows with λ², which a factor of λ^-2 takes out again.

Letters: N supervised rows, D width.
"""

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from oprd.core.capture import hidden_size, num_layers
from oprd.log import get_logger
from oprd.models.reader import Reader
from oprd.models.views import Views

# Below it two models have little in common, and the line between them leads anywhere.
RELATED_COSINE = 0.5

logger = get_logger(__name__)


class Reference:
    """What the teacher was made of, and how far beyond the teacher its student goes.

    Args:
        reader: the model, wherever its weights are.
        extrapolation: λ.
    """

    def __init__(self, reader: Reader, extrapolation: float) -> None:
        self.reader, self._extrapolation = reader, extrapolation
        self._compared = False

    @torch.no_grad()
    def beyond(
        self, student: nn.Module, views: Views, states: MutableMapping[int, Tensor]
    ) -> dict[int, Tensor]:
        """The targets [N, D] by layer.

        Args:
            student: not wrapped, for a reference on its base.
            views: what the teacher read.
            states: what it made of them, [N, D] by layer.
        """
        own = self.reader.read(student, views, sorted(states)).states
        if not self._compared and any(len(rows) for rows in states.values()):
            self._compared = True
            _warn_if_unrelated(own, states)
        targets = {}
        for layer, rows in states.items():
            # Each model's layers may stand on several devices.
            begin = own[layer].to(rows.device, torch.float32)
            targets[layer] = begin.lerp(rows.float(), self._extrapolation).to(rows.dtype)
        return targets


def check_lineage(student: Any, teacher: Any, reference: Any, *, bridged: bool = False) -> None:
    """Refuse, with a ValueError, models whose states have no line between them."""
    if bridged:
        raise ValueError(
            "extrapolation goes on in the teacher's own space, within one lineage: leave the "
            "bridge out."
        )
    shapes = {
        role: (num_layers(model), hidden_size(model))
        for role, model in (("student", student), ("teacher", teacher), ("reference", reference))
    }
    widths = {width for _, width in shapes.values()}
    if len(widths) > 1 or shapes["teacher"] != shapes["reference"]:
        listed = ", ".join(f"the {role} {d} × {w}" for role, (d, w) in shapes.items())
        raise ValueError(
            "extrapolation goes on from the reference through the teacher, which needs one lineage "
            f"of equal widths, and a reference as deep as the teacher (layers × width: {listed})."
        )


def _warn_if_unrelated(
    reference: MutableMapping[int, Tensor], teacher: MutableMapping[int, Tensor]
) -> None:
    cosines = [
        torch.cosine_similarity(
            reference[layer].to(rows.device, torch.float32), rows.float(), dim=1
        ).mean()
        for layer, rows in teacher.items()
    ]
    mean = torch.stack([cosine.cpu() for cosine in cosines]).mean().item()
    if mean < RELATED_COSINE:
        logger.warning(
            f"The states of reference and teacher have a cosine of {mean:.3f} on the first "
            "rollouts: they seem not to be of one lineage, and a point beyond the teacher on a "
            "line from there means little. Let reference_model be what the teacher was trained "
            "from."
        )
