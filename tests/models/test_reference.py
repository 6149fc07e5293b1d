"""Targets beyond the teacher whose layers stand elsewhere than the reference's."""

from types import SimpleNamespace

import torch
from torch import nn

from oprd.models.reading import Reading, View
from oprd.models.reference import Reference
from oprd.models.views import Views

VIEWS = Views((View.of_texts(torch.ones(1, 3, dtype=torch.long)),))


def reference(states):
    """A reference with these states, of the teacher's lineage."""
    made = Reference(SimpleNamespace(read=lambda *_: Reading(states)), 1.5)
    made._compared = True
    return made


def test_a_target_is_where_the_teachers_layer_is():
    """The meta device stands for another one than the reference's."""
    teacher = {1: torch.ones(3, 2, device="meta"), 2: torch.ones(3, 2, dtype=torch.bfloat16)}
    own = {1: torch.zeros(3, 2), 2: torch.zeros(3, 2)}
    found = reference(own).beyond(nn.Identity(), VIEWS, teacher)
    assert found[1].is_meta and found[1].shape == (3, 2)
    assert torch.equal(found[2], torch.full((3, 2), 1.5, dtype=torch.bfloat16))
