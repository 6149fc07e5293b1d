"""Gradients under FSDP2 against those of one process; run in two processes by test_distributed.

Accelerate sets up FSDP on accelerators alone, so that torch's own sharding stands in for it here.
The forward goes through the sharded root as the trainer's does, with gradient checkpointing. The
argument holds settings, as JSON.
"""

import json
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from trl.models.utils import _ForwardRedirection

from oprd.core.capture import num_layers
from oprd.core.layers import pair_layers
from oprd.core.positions import select_positions
from oprd.core.reduction import supervised_count
from oprd.models.batch import MicroBatch
from oprd.models.reader import Reader
from oprd.models.teacher import Teacher
from oprd.settings.run import OPRDConfig
from oprd.training.update import Update
from tests import tiny

PROMPT = 4


def backward(
    student: nn.Module,
    teacher: nn.Module,
    rows: slice,
    processes: int,
    options: dict[str, Any],
) -> None:
    """One update's gradients on some of the sequences, each term divided by the count of all."""
    args = OPRDConfig("unused", **options, position_k=3, use_cpu=True, report_to=[])
    # The last process has short responses, the very last of them none.
    ids, mask = tiny.batch((12, 9, 7, 5))
    mask[3, PROMPT:] = 0
    response = mask[:, PROMPT:].bool()
    positions = select_positions(response, "last_k", args.position_k)
    batch = MicroBatch.of_rollouts(
        ids[rows],
        mask[rows],
        response[rows],
        positions[rows],
        response_count=supervised_count(response) / processes,
        position_count=supervised_count(positions) / processes,
    )
    depth = num_layers(student)
    pairs = pair_layers(range(1, depth + 1), depth, depth)
    redirect = _ForwardRedirection()
    frozen = Teacher(Reader(teacher), pairs)
    # As `place` leaves a teacher that is sharded already.
    frozen.reader.placed(teacher, teacher, redirect)
    update = Update(args, comparable=True, vocab_size=tiny.VOCAB)

    def loss(model: nn.Module) -> torch.Tensor:
        return update(model, batch, frozen, update.needs()).objective

    redirect(student, student, loss, student).backward()


def main(options: dict[str, Any]) -> None:
    dist.init_process_group("gloo")
    rank, processes = dist.get_rank(), dist.get_world_size()
    student, teacher = (
        tiny.model(seed=1, tie_word_embeddings=True).double().train(),
        tiny.model(seed=2).double(),
    )
    backward(student, teacher, slice(0, 4), 1, options)
    expected = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}

    mesh = init_device_mesh("cpu", (processes,))
    sharded, sharded_teacher = (
        tiny.model(seed=1, tie_word_embeddings=True).double().train(),
        tiny.model(seed=2).double(),
    )
    for model in (sharded, sharded_teacher):
        for block in model.base_model.layers:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        assert isinstance(model, FSDPModule)
    sharded.gradient_checkpointing_enable()
    share = 4 // processes
    rows = slice(rank * share, (rank + 1) * share)
    backward(sharded, sharded_teacher, rows, processes, options)
    gradients = {
        name: p.grad.full_tensor() for name, p in sharded.named_parameters() if p.grad is not None
    }
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-9)
    torch.optim.SGD(sharded.parameters(), lr=1.0).step()
    head, embedding = sharded.lm_head.weight, sharded.base_model.embed_tokens.weight
    assert torch.equal(head.full_tensor(), embedding.full_tensor()), "tied weights came apart"
    dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
