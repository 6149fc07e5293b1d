"""The gradients of a teacher's output that `basis="fisher"` is fitted on.

    g = ∂ Σ_t log q_t(y_t) / ∂h,  y_t ~ q_t

drawn once at each position t that is read. E[g gᵀ] weighs a direction of h by what it changes in
the teacher's distributions.

Letters: N rows, V vocabulary, D width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from oprd.core.capture import capture_states, num_layers
from oprd.core.output.head import LMHead, chunks
from oprd.core.positions import gather_rows, row_index
from oprd.models.heads import lm_head
from oprd.models.reading import View, base_forward


def output_gradients(
    teacher: Any,
    layers: Sequence[int],
    view: View,
    generator: torch.Generator,
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """States [N, D] and gradients [N, D] by layer.

    Args:
        teacher: a causal language model, whose weights are left alone.
        layers: which are read.
        view: what it reads; its rows are those that are read, and at which y is drawn.
        generator: of the draws, on the CPU.

    Raises:
        ValueError: the teacher's LM head cannot be read.
    """
    last = num_layers(teacher)
    view = view.to(teacher.device)
    index = row_index(view.rows)
    with torch.enable_grad(), _differentiable_inputs(teacher):
        # Whole states, not their rows: the gradient goes through what the next block reads.
        with capture_states(teacher, sorted({*layers, last})) as states:
            base_forward(teacher, view.input_ids, view.attention_mask)
        read_at = gather_rows(states[last], index)
        at_last = _head_gradients(lm_head(teacher).detach(), read_at.detach(), generator)
        gradients = torch.autograd.grad(read_at, [states[layer] for layer in layers], at_last)
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
