"""The sum of a per-row loss over rows, in chunks, so that the logits of all rows never exist.

A loss on next-token distributions has a closed-form gradient with respect to the logits. Each chunk
of rows is projected once, and while its logits are at hand the gradient goes on to the rows and to
the head: four products with the head in all, as many as with full logits, and nothing but sums left
to keep for the backward pass.

Letters: N supervised rows, n rows of a chunk, V vocabulary, D width, M ids looked at in each row.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from oprd.core.head import LMHead, add_product, chunks
from oprd.core.pair import Chunk, Pair, pass_over
from oprd.core.reduction import LossSum, Reduction, position_weights, supervised_count


class Slope(NamedTuple):
    """A loss on the n rows of a chunk.

    Attributes:
        values: [n].
        slope: [n, V], or [n, M] with `ids`: what descends, ∂ value / ∂ student logits.
        ids: [n, M], the vocabulary entries that `slope` speaks of, if not all.
    """

    values: Tensor
    slope: Tensor
    ids: Tensor | None = None


Formula = Callable[[Chunk], Slope]


def sum_loss(pair: Pair, formula: Formula, reduction: Reduction) -> LossSum:
    """Reduce a formula's values over a pair's rows, with a graph to the student's rows and head."""
    weights = position_weights(pair.mask, reduction, pair.dtype).flatten()[pair.index]
    head = pair.student_head
    variables = (pair.student_rows, head.weight, head.bias)
    needs = tuple(
        torch.is_grad_enabled() and variable is not None and variable.requires_grad
        for variable in variables
    )
    total = _ChunkedSum.apply(*variables, pair.detach(), weights, formula, needs)
    return LossSum(cast(Tensor, total), supervised_count(pair.mask, reduction))


class _ChunkedSum(torch.autograd.Function):
    """Σ_n weight_n · value_n, whose gradients are worked out in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        pair: Pair,
        weights: Tensor,
        formula: Formula,
        needs: tuple[bool, bool, bool],
    ) -> Tensor:
        ctx.save_for_backward(rows, weight, bias)
        ctx.evaluate = lambda: _evaluate(pair, weights, formula, needs)
        total, ctx.gradients = ctx.evaluate()
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        variables = ctx.saved_tensors
        # The sums are scaled in place and given away, so that a head's gradient exists once. A
        # second backward through a retained graph works them out again.
        gradients = ctx.gradients or ctx.evaluate()[1]
        ctx.gradients = None
        scaled = (
            None if gradient is None else gradient.mul_(grad).to(variable.dtype)
            for variable, gradient in zip(variables, gradients, strict=True)
        )
        return (*scaled, None, None, None, None)


Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def _evaluate(
    pair: Pair, weights: Tensor, formula: Formula, needs: tuple[bool, bool, bool]
) -> tuple[Tensor, Gradients]:
    """The weighted sum and its gradients for the student's rows, head weight and head bias."""
    rows, head = pair.student_rows, pair.student_head
    values = torch.empty_like(weights)
    grad_rows, grad_weight, grad_bias = (
        torch.zeros_like(variable, dtype=pair.dtype) if needed and variable is not None else None
        for variable, needed in zip((rows, head.weight, head.bias), needs, strict=True)
    )
    gradients = (grad_rows, grad_weight, grad_bias)
    with torch.autocast(rows.device.type, enabled=False):
        for chunk in pass_over(pair):
            part = chunk.part
            values[part], slope, ids = formula(chunk)
            if any(needs):
                slope = slope.mul_(weights[part, None] * chunk.derivative(ids))
                here = (None if grad_rows is None else grad_rows[part], grad_weight, grad_bias)
                if ids is None:
                    _add_gradients(slope, rows[part], head, here)
                else:
                    _add_gradients_at(slope, ids, rows[part], head, here)
    return (values * weights).sum(), gradients


def _add_gradients(slope: Tensor, rows: Tensor, head: LMHead, gradients: Gradients) -> None:
    """Pass ∂/∂ products [n, V] on to the rows [n, D] and the head."""
    grad_rows, grad_weight, grad_bias = gradients
    for tile in chunks(*head.weight.shape):
        if grad_rows is not None:
            add_product(grad_rows, slope[:, tile], head.weight[tile].to(rows.dtype))
        if grad_weight is not None:
            add_product(grad_weight[tile], slope[:, tile].T, rows)
    if grad_bias is not None:
        grad_bias += slope.sum(dim=0)


def _add_gradients_at(
    slope: Tensor, ids: Tensor, rows: Tensor, head: LMHead, gradients: Gradients
) -> None:
    """Pass ∂/∂ products [n, M] at ids [n, M] on to the rows [n, D] and the head."""
    grad_rows, grad_weight, grad_bias = gradients
    for part in chunks(len(rows), ids.shape[1] * head.width):
        if grad_rows is not None:
            looked_at = head.weight[ids[part]].to(slope.dtype)
            grad_rows[part] += (slope[part, None] @ looked_at).squeeze(1)
        if grad_weight is not None:
            outer = slope[part, :, None] * rows[part, None].to(slope.dtype)
            grad_weight.index_add_(0, ids[part].flatten(), outer.flatten(0, 1))
    if grad_bias is not None:
        grad_bias.index_add_(0, ids.flatten(), slope.flatten())
