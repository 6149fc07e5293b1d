"""Variants of OPRD that only a comparison needs."""

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from oprd import OPRDConfig, OPRDTrainer
from oprd.models.reference import Reference
from oprd.models.views import Views
from oprd.training.batch import select


def select_consumed(output: dict[str, Any], args: OPRDConfig) -> None:
    """Supervise one position later: the state after reading ŷ_t, as the official code has it.

    The state that predicts the first token is never supervised, and the one after the last is. In
    terms of predicting states the mask moves by one column, of which there is one more.
    """
    select(output, args)
    # Whatever stands in the new column is masked.
    output["completion_ids"] = pad(output["completion_ids"], (0, 1))
    output["completion_mask"] = pad(output["completion_mask"], (0, 1))
    output["positions"] = pad(output["positions"], (1, 0))


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
