"""The sum of an output-space loss over rows, in chunks: the logits of all rows never exist.

A loss on next-token distributions has a closed-form gradient with respect to the logits. Each chunk
of rows is projected once, and while its logits are at hand the gradient goes on to the rows and to
the head: four products with the head in all, as many as with full logits, and nothing but sums left
to keep for the backward pass.

Letters: N supervised rows, n rows of a chunk, V vocabulary, D width, M ids looked at in each row.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from oprd.core.output.chunk import pass_over
from oprd.core.output.head import LMHead, add_product, chunks
from oprd.core.output.loss import OutputLoss
from oprd.core.output.pair import Pair, select_pair
from oprd.core.reduction import LossSum, Reduction, position_weights, supervised_count


def output_loss(
    loss: OutputLoss,
    student_hidden: Tensor,
    teacher_hidden: Tensor,
    student_head: LMHead | Tensor,
    teacher_head: LMHead | Tensor,
    mask: Tensor,
    token_ids: Tensor | None = None,
    *,
    temperature: float = 1.0,
    reduction: Reduction = "sequence",
) -> LossSum:
    """A loss at the mask's positions.

    Args:
        loss: one of `oprd.core.objective.OUTPUT_LOSSES`.
        student_hidden: [B, K, student width], row t the state that predicts token t; or the mask's
            rows alone, [N, student width], in its order.
        teacher_hidden: [B, K, teacher width], on the same tokens; or its rows, likewise.
        student_head: an `LMHead`, or its weight [V, student width].
        teacher_head: an `LMHead`, or its weight [V, teacher width].
        mask: [B, K], true where a position is supervised; other rows are never read.
        token_ids: [B, K] integers, the rollout ŷ, for losses that look at it; ids outside the mask
            are never read.
        temperature: divides both models' logits.
        reduction: see `oprd.core.reduction.position_weights`.

    Returns:
        The total, float32 (float64 for float64 student states), and its count.

    Raises:
        ValueError: a shape, the temperature, the reduction or a supervised token id is out of
            bounds, the vocabularies differ in size or are too small, or the loss looks at tokens
            and was given none.
    """
    pair = select_pair(
        student_hidden, teacher_hidden, student_head, teacher_head, mask, temperature, token_ids
    )
    return sum_loss(pair, loss, reduction)


def sum_loss(
    pair: Pair,
    loss: OutputLoss,
    reduction: Reduction,
    shares: Tensor | None = None,
) -> LossSum:
    """A loss's values reduced over a pair's rows, with a graph to the student's rows and head.

    Args:
        pair: both models at the same positions.
        loss: see `output_loss`.
        reduction: likewise.
        shares: [B], what each sequence's values are multiplied by; 1 by default.

    Raises:
        ValueError: the reduction is unknown, the pair's vocabulary is too small for the loss, or
            the loss looks at single tokens and the pair has two vocabularies.
    """
    return sum_losses([pair], loss, reduction, pair.mask, shares)


def sum_losses(
    pairs: Sequence[Pair],
    loss: OutputLoss,
    reduction: Reduction,
    mask: Tensor,
    shares: Tensor | None = None,
) -> LossSum:
    """The same over pairs of one student, each at a part of the positions.

    Args:
        pairs: with the very same student's head; at least one.
        loss: see `output_loss`.
        reduction: likewise.
        mask: [B, K], all positions of the term; those that no pair has count as zero.
        shares: see `sum_loss`.

    Raises:
        ValueError: see `sum_loss`.
    """
    for pair in pairs:
        loss.check(pair.size)
        if pair.classes is not None and not loss.whole:
            raise ValueError(
                f"{type(loss).__name__} looks at single tokens, and these are of two "
                "vocabularies: take a divergence over all of them."
            )
    first = pairs[0]
    of_all = position_weights(mask, reduction, first.dtype, shares).flatten()
    weights = [of_all[pair.index] for pair in pairs]
    rows = first.student_rows if len(pairs) == 1 else torch.cat([p.student_rows for p in pairs])
    variables = (rows, first.student_head.weight, first.student_head.bias)
    needs = tuple(
        torch.is_grad_enabled() and variable is not None and variable.requires_grad
        for variable in variables
    )
    detached = [pair.detach() for pair in pairs]
    total = _ChunkedSum.apply(*variables, detached, weights, loss, needs)
    return LossSum(cast(Tensor, total), supervised_count(mask, reduction))


class _ChunkedSum(torch.autograd.Function):
    """Σ_n weight_n · value_n, whose gradients are worked out in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        pairs: Sequence[Pair],
        weights: Sequence[Tensor],
        loss: OutputLoss,
        needs: tuple[bool, bool, bool],
    ) -> Tensor:
        ctx.save_for_backward(rows, weight, bias)
        ctx.evaluate = lambda: _evaluate(pairs, weights, loss, needs)
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
    pairs: Sequence[Pair],
    weights: Sequence[Tensor],
    loss: OutputLoss,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor, Gradients]:
    """The weighted sum and its gradients for the students' rows, head weight and head bias."""
    head, dtype = pairs[0].student_head, pairs[0].dtype
    lengths = [len(pair.student_rows) for pair in pairs]
    shapes = ((sum(lengths), head.width), head.weight.shape, head.weight.shape[:1])
    grad_rows, grad_weight, grad_bias = (
        head.weight.new_zeros(shape, dtype=dtype) if needed else None
        for shape, needed in zip(shapes, needs, strict=True)
    )
    total = torch.zeros((), dtype=dtype, device=head.weight.device)
    here = [None] * len(pairs) if grad_rows is None else grad_rows.split(lengths)
    for pair, own, rows in zip(pairs, weights, here, strict=True):
        total = total + _evaluate_pair(pair, own, loss, (rows, grad_weight, grad_bias))
    return total, (grad_rows, grad_weight, grad_bias)


def _evaluate_pair(pair: Pair, weights: Tensor, loss: OutputLoss, gradients: Gradients) -> Tensor:
    """The weighted sum of a pair; its gradients are added to those that are wanted."""
    rows, head, values = pair.student_rows, pair.student_head, torch.empty_like(weights)
    grad_rows, grad_weight, grad_bias = gradients
    with torch.autocast(rows.device.type, enabled=False):
        for chunk in pass_over(pair):
            part = chunk.part
            values[part], slope, ids = loss(chunk)
            if any(gradient is not None for gradient in gradients):
                slope, ids = chunk.apart(slope, ids)
                slope = slope.mul_(weights[part, None] * chunk.derivative(ids))
                here = (None if grad_rows is None else grad_rows[part], grad_weight, grad_bias)
                if ids is None:
                    _add_gradients(slope, rows[part], head, here)
                else:
                    _add_gradients_at(slope, ids, rows[part], head, here)
    return (values * weights).sum()


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
