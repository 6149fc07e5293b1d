"""A moving average of weights that FSDP2 splits among two processes, against whole ones.

Run in both by test_average. Accelerate sets up FSDP on accelerators alone, so that torch's own
sharding stands in for it here. The argument is a folder.
"""

import os
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from oprd.models.average import MovingAverage
from tests import tiny


def shard(model: nn.Module) -> nn.Module:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for block in model.base_model.layers:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def average(student: nn.Module, teacher: nn.Module) -> MovingAverage:
    return MovingAverage(lambda: student, lambda: teacher, 0.75)


def whole(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: p.full_tensor() if hasattr(p, "full_tensor") else p
        for name, p in model.named_parameters()
    }


def main(folder: str) -> None:
    PartialState()
    write = os.environ["RANK"] == "0"
    pairs = [(tiny.model(seed=1), tiny.model(seed=2)) for _ in range(2)]
    for model in pairs[1]:
        shard(model)
    for student, teacher in pairs:
        made = average(student, teacher)
        made.update()
        made.update()
    expected = whole(pairs[0][1])
    for name, found in whole(pairs[1][1]).items():
        torch.testing.assert_close(found, expected[name], rtol=0, atol=0)
    place = Path(folder)
    made.save(place, write=write)
    dist.barrier()
    # The mean of a sharded run goes on in a whole one, and the other way round.
    for fresh in (tiny.model(seed=3), shard(tiny.model(seed=3))):
        average(pairs[0][0], fresh).resume(place)
        for name, found in whole(fresh).items():
            torch.testing.assert_close(found, expected[name], rtol=0, atol=0)
