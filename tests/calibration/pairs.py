"""A student and a teacher of other depth, width and heads, and rollouts that the test decides."""

import torch

from oprd.calibration.rollouts import Rollout
from tests import tiny


def student():
    return tiny.model("llama", seed=1)


def teacher():
    return tiny.model(
        "qwen3", seed=2, num_hidden_layers=4, hidden_size=48, num_attention_heads=6, head_dim=16
    )


def sibling():
    """The student a few steps on."""
    model = student()
    with torch.no_grad():
        for n, weight in enumerate(model.parameters()):
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(n))
            weight.add_(0.2 * weight.std() * noise)
    return model


def rollouts(count=12, seed=0):
    """Prompts and responses of various lengths, in random bytes."""
    generator = torch.Generator().manual_seed(seed)

    def ids(least, most):
        length = int(torch.randint(least, most, (), generator=generator))
        return torch.randint(0, 256, (length,), generator=generator).tolist()

    return [Rollout(n, f"prompt text {n}", ids(1, 9), ids(4, 20), "length") for n in range(count)]
