"""Past the teacher in a direction that no reference gives."""

from collections.abc import MutableMapping

import torch
from torch import Tensor, nn

from oprd import OPRDTrainer
from oprd.models.reference import Reference
from oprd.models.views import Views


class RandomDirection(Reference):
    """As far from the teacher as its reference asks for, in one direction a layer, drawn once."""

    def beyond(
        self, student: nn.Module, views: Views, states: MutableMapping[int, Tensor]
    ) -> dict[int, Tensor]:
        """The targets [N, D] by layer; see `Reference`."""
        ahead = super().beyond(student, views, states)
        found = {}
        for layer, rows in states.items():
            generator = torch.Generator().manual_seed(layer)
            direction = torch.randn(rows.shape[1], generator=generator).to(rows)
            length = torch.linalg.vector_norm(ahead[layer] - rows, dim=1, keepdim=True)
            found[layer] = rows + length * direction / torch.linalg.vector_norm(direction)
        return found


def random_direction(trainer: OPRDTrainer) -> None:
    """Let a run past its teacher go elsewhere, as far."""
    for member in trainer._team.values():
        reference = member.teacher.reference
        assert reference is not None
        extrapolation = trainer.args.extrapolation
        member.teacher.reference = RandomDirection(reference.reader, extrapolation)
