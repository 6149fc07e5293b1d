"""A small student, its teacher and rollouts, for the measurements of the theory."""

import torch

from lab.readings import Models, write_rollouts
from tests import tiny


def models() -> Models:
    student, teacher = tiny.model("qwen3", seed=0), tiny.model("qwen3", seed=0)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for parameter in teacher.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter += 0.3 * parameter.std() * noise if parameter.ndim > 1 else 0
    return Models(student, teacher.requires_grad_(False), tiny.tokenizer())


def rollouts(pair: Models, limit: int = 6):
    return write_rollouts(pair.student, pair.tokenizer, ["a", "1+2=", "hello"], limit, seed=0)
