"""The gradients of a teacher's output that `basis="fisher"` is fitted on.

    g = ∂ Σ_t log q_t(y_t) / ∂h,  y_t ~ q_t

drawn once at each position t that is read. E[g gᵀ] weighs a direction of h by what it changes in
the teacher's distributions.

Letters: B sequences, T tokens, N rows, V vocabulary, D width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from oprd.core.capture import capture_states, num_layers
from oprd.core.head import LMHead, chunks
from oprd.core.positions import gather_rows, row_index
from oprd.training.forward import base_forward
from oprd.training.heads import lm_head


def output_gradients(
    teacher: Any,
    layers: Sequence[int],
    input_ids: Tensor,
    attention_mask: Tensor,
    rows: Tensor,
    generator: torch.Generator,
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """States [N, D] and gradients [N, D] by layer.

    Args:
        teacher: a causal language model, whose weights are left alone.
        layers: which are read.
        input_ids: [B, T].
        attention_mask: [B, T], 1 at real tokens.
        rows: [B, T] bool, the positions that are read, and at which y is drawn.
        generator: of the draws, on the CPU.

    Raises:
        ValueError: the teacher's LM head cannot be read.
    """
    last = num_layers(teacher)
    device = teacher.device
    index = row_index(rows.to(device))
    with torch.enable_grad(), _differentiable_inputs(teacher):
        with capture_states(teacher, sorted({*layers, last})) as states:
            base_forward(teacher, input_ids.to(device), attention_mask.to(device))
        read = gather_rows(states[last], index)
        at_last = _head_gradients(lm_head(teacher).detach(), read.detach(), generator)
        gradients = torch.autograd.grad(read, [states[layer] for layer in layers], at_last)
    return (
        {layer: gather_rows(states[layer].detach(), index) for layer in layers},
        {
            layer: gather_rows(gradient, index)
            for layer, gradient in zip(layers, gradients, strict=True)
        },
    )


def _head_gradients(head: LMHead, last: Tensor, generator: torch.Generator) -> Tensor:
    """[N, D] ∂ log q(y)/∂h = (1_y − q) ∂z/∂h at the last layer, some rows at a time."""
    gradients = torch.empty_like(last)
    weight = head.weight.float()
    for part in chunks(len(last), head.vocab_size):
        logits = last.new_empty((len(last[part]), head.vocab_size), dtype=torch.float32)
        head.logits(last[part], out=logits)
        derivative = head.derivative(logits)
        q = logits.softmax(dim=1)
        y = _draw(q, generator)
        gradients[part] = ((-q).scatter_add_(1, y, torch.ones_like(q[:, :1])) * derivative) @ weight
    return gradients


def _draw(q: Tensor, generator: torch.Generator) -> Tensor:
    """[N, 1] y ~ q, from the CPU's generator, so that a seed means the same on every device."""
    uniform = torch.rand(len(q), 1, generator=generator, dtype=torch.float64).to(q.device)
    cumulative = q.double().cumsum(dim=1)
    return torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)


@contextmanager
def _differentiable_inputs(model: Any) -> Iterator[None]:
    """Let a graph start at the embeddings of a model whose weights are frozen."""
    handle = model.get_input_embeddings().register_forward_hook(
        lambda _, __, output: output.requires_grad_()
    )
    try:
        yield
    finally:
        handle.remove()
