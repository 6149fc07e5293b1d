from types import SimpleNamespace
from typing import Any

import pytest

from oprd.calibration.processes import check_heads_stand_whole


def accelerator(*, zero: int | None = None, fsdp: int | None = None) -> Any:
    """As Accelerate has it under DeepSpeed or FSDP."""
    plugins = {
        "deepspeed_plugin": zero and SimpleNamespace(zero_stage=zero),
        "fsdp_plugin": fsdp and SimpleNamespace(),
    }
    return SimpleNamespace(state=SimpleNamespace(**plugins), is_fsdp2=fsdp == 2)


@pytest.mark.parametrize(("options", "name"), [({"zero": 3}, "ZeRO-3"), ({"fsdp": 1}, "FSDP 1")])
def test_heads_whose_weights_are_in_pieces_are_refused_with_what_to_use(options, name):
    with pytest.raises(ValueError, match=rf"{name} keeps in pieces: use FSDP2 or DeepSpeed ZeRO-2"):
        check_heads_stand_whole(accelerator(**options))


@pytest.mark.parametrize("options", [{}, {"zero": 2}, {"fsdp": 2}])
def test_heads_whose_weights_can_be_read_are_not_refused(options):
    check_heads_stand_whole(accelerator(**options))
