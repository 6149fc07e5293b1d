"""Gradients under FSDP2 against those of one process; run in two processes by test_distributed.

Accelerate sets up FSDP on accelerators alone, so that torch's own sharding stands in for it here.
The forward goes through the sharded root as the trainer's does, with gradient checkpointing. The
argument holds settings, as JSON.
"""

import json
import sys
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from trl.models.utils import _ForwardRedirection

from oprd.core.capture import blocks, num_layers
from oprd.core.layers import pair_layers
from oprd.core.positions import select_positions
from oprd.core.reduction import supervised_count
from oprd.models.batch import MicroBatch
from oprd.models.parts import Part
from oprd.models.reader import Reader
from oprd.models.reference import Reference
from oprd.models.shared_base import base_active
from oprd.models.teacher import Teacher
from oprd.settings.run import OPRDConfig
from oprd.training.update import Update
from tests import tiny
from tests.training.runs import LORA

PROMPT = 4


# Of four sequences, what the first and the second teacher have: the first process none of the
# second's.
SHARES = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.25, 0.75], [0.0, 1.0]])


def backward(
    student: nn.Module,
    teachers: list[nn.Module],
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
    # As `place` leaves models that are sharded already; of the student's base its own forward does.
    readers = [Reader(m, base_active if m is student else None) for m in teachers]
    for reader, model in zip(readers, teachers, strict=True):
        reader.gathers = processes > 1
        if not reader.on_student:
            reader.placed(model, model, redirect)
    reference = None
    if args.extrapolates:
        reference = Reference(readers.pop(), args.extrapolation)
    frozen = [Teacher(reader, pairs, reference=reference) for reader in readers]
    update = Update(args, comparable=True, vocab_size=tiny.VOCAB)
    several = replace(batch, shares=SHARES[rows].double(), reads=SHARES[rows] >= 0)

    def loss(model: nn.Module) -> torch.Tensor:
        needs = update.needs()
        if len(frozen) == 1:
            return update(model, batch, frozen[0], needs).objective
        meetings = {
            str(n): update.begin(
                model, Part.of(several, n, gathers=teacher.reader.gathers), teacher, needs
            )
            for n, teacher in enumerate(frozen)
        }
        return update.meet(model, batch, meetings).objective

    redirect(student, student, loss, student).backward()


def adapted(model: nn.Module) -> nn.Module:
    """With an adapter that changes it, so that its base is another model."""
    made = get_peft_model(model, LoraConfig(**LORA)).double()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in made.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator).double()
    return made


def main(options: dict[str, Any]) -> None:
    dist.init_process_group("gloo")
    rank, processes = dist.get_rank(), dist.get_world_size()
    seeds = (2, 4) if options.pop("several", False) else (2,)
    # What an extrapolation goes on from is the last of them.
    seeds += (6,) if "extrapolation" in options else ()
    on_base = options.pop("on_base", False)

    def models() -> tuple[nn.Module, list[nn.Module]]:
        student = tiny.model(seed=1, tie_word_embeddings=True).double().train()
        teachers: list[nn.Module] = [tiny.model(seed=seed).double() for seed in seeds]
        if on_base:
            student = adapted(student)
            teachers[-1] = student
        return student, teachers

    student, teachers = models()
    backward(student, teachers, slice(0, 4), 1, options)
    expected = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}

    mesh = init_device_mesh("cpu", (processes,))
    sharded, sharded_teachers = models()
    for model in dict.fromkeys((sharded, *sharded_teachers)):
        for block in blocks(model):
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        assert isinstance(model, FSDPModule)
    sharded.gradient_checkpointing_enable()
    share = 4 // processes
    rows = slice(rank * share, (rank + 1) * share)
    backward(sharded, sharded_teachers, rows, processes, options)
    gradients = {
        name: p.grad.full_tensor() for name, p in sharded.named_parameters() if p.grad is not None
    }
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-9)
    torch.optim.SGD(sharded.parameters(), lr=1.0).step()
    if not on_base:
        head, embedding = sharded.lm_head.weight, sharded.base_model.embed_tokens.weight
        assert torch.equal(head.full_tensor(), embedding.full_tensor()), "tied weights came apart"
    dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
