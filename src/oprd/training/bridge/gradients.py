"""The gradients of a teacher's output that `basis="fisher"` is fitted on.

    g = ∂ Σ_t log q_t(y_t) / ∂h,  y_t ~ q_t

drawn once at each position t that is read. E[g gᵀ] weighs a direction of h by what it changes in
the teacher's distributions.

Letters: B sequences, T tokens, N rows, V vocabulary, D width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from oprd.core.capture import capture_states, num_layers
from oprd.core.head import chunks
from oprd.core.rows import gather_rows, row_index
from oprd.training.forward import base_forward


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
    """
    last = num_layers(teacher)
    device = teacher.device
    index = row_index(rows.to(device))
    with torch.enable_grad(), _differentiable_inputs(teacher):
        with capture_states(teacher, sorted({*layers, last})) as states:
            base_forward(teacher, input_ids.to(device), attention_mask.to(device))
        read = gather_rows(states[last], index)
        at_last = _head_gradients(teacher, read.detach(), generator)
        gradients = torch.autograd.grad(read, [states[layer] for layer in layers], at_last)
    return (
        {layer: gather_rows(states[layer].detach(), index) for layer in layers},
        {
            layer: gather_rows(gradient, index)
            for layer, gradient in zip(layers, gradients, strict=True)
        },
    )


def _head_gradients(teacher: Any, last: Tensor, generator: torch.Generator) -> Tensor:
    """[N, D] ∂ log q(y)/∂h at the last layer, some rows at a time."""
    head = cast(nn.Module, teacher.get_output_embeddings())
    gradients = torch.empty_like(last)
    for part in chunks(len(last), teacher.config.get_text_config().vocab_size):
        h = last[part].requires_grad_()
        log_q = _finished_logits(teacher, head(h)).log_softmax(dim=1)
        uniform = torch.rand(len(h), 1, generator=generator, dtype=torch.float64)
        # Drawn from the CPU's generator, so that a seed means the same on every device.
        cumulative = log_q.detach().double().exp().cumsum(dim=1)
        scaled = uniform.to(cumulative.device) * cumulative[:, -1:]
        y = torch.searchsorted(cumulative, scaled, right=True)
        (gradients[part],) = torch.autograd.grad(log_q.gather(1, y).sum(), h)
    return gradients


def _finished_logits(teacher: Any, logits: Tensor) -> Tensor:
    """Soft-capped where the model does it after its head; float32."""
    logits = logits.float()
    cap = getattr(teacher.config.get_text_config(), "final_logit_softcapping", None)
    return cap * torch.tanh(logits / cap) if cap else logits


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
