"""Where frozen models are put."""

from types import SimpleNamespace

import pytest
import torch

from oprd.models.reader import Reader
from oprd.models.shared_base import base_active
from oprd.training.teachers.place import place
from tests import tiny


@pytest.mark.parametrize("plugin", ["fsdp_plugin", "deepspeed_plugin"])
def test_on_the_students_base_all_processes_read_where_that_is_in_pieces(plugin):
    """Else a process without a row of this teacher's would leave the others waiting."""
    for state, gathers in ((SimpleNamespace(**{plugin: object()}), True), (object(), False)):
        reader = Reader(tiny.model(), base_active)
        accelerator = SimpleNamespace(state=state, device=torch.device("cpu"))
        assert place([reader], accelerator, lambda *_: None) == [None]
        assert reader.gathers is gathers
