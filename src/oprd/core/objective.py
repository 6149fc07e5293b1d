"""The objective (Eq. 7): the one place where terms meet.

    L = w · L_output + µ · L_representation

on one rollout, from one forward pass of each model. Each term is a sum over its own positions,
divided by its own count over the whole batch, so that its factor keeps its meaning whatever
positions the other supervises. The representation term is `oprd.core.representation`'s; the output
term is one of `oprd.core.divergence`'s, chosen here by name.

Letters: B sequences, K response tokens, N supervised rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from oprd.core.divergence import Support, full_kl_loss, jsd_loss, sampled_token_loss, topk_loss
from oprd.core.head import LMHead
from oprd.core.reduction import LossSum, Reduction

OutputKind = Literal["sampled", "topk", "reverse_kl", "forward_kl", "jsd"]


class Term(NamedTuple):
    """A part of the objective.

    Attributes:
        name: what it is called in logs.
        weight: its factor.
        loss: the total of one micro-batch, and the count of the whole batch.
    """

    name: str
    weight: float
    loss: LossSum

    @property
    def mean(self) -> Tensor:
        """The micro-batch's share of the term's mean, scalar; zero where nothing is supervised."""
        total, count = self.loss
        return total / count.to(total.device).clamp(min=1)


def objective(terms: Iterable[Term]) -> Tensor:
    """Σ weight · total / count over the terms (Eq. 7), a scalar with their graphs.

    Summed over the micro-batches and processes of a batch, it is the loss of that batch, however
    it was split.

    Raises:
        ValueError: there is no term.
    """
    weighted = [term.weight * term.mean for term in terms]
    if not weighted:
        raise ValueError("an objective needs at least one term.")
    # Models may stand on several devices.
    return torch.stack([value.to(weighted[0].device) for value in weighted]).sum()


@dataclass(frozen=True)
class OutputLoss:
    """Which output-space loss, and its settings.

    Attributes:
        kind: `"sampled"` (Eq. 3), `"topk"` (Eq. 5), `"reverse_kl"` (Eq. 4), `"forward_kl"` or
            `"jsd"`.
        k: of `"topk"`, see `oprd.core.divergence.topk_loss`.
        support: of `"topk"`, likewise.
        renormalize: of `"topk"`, likewise.
        beta: of `"jsd"`, see `oprd.core.divergence.jsd_loss`.
        temperature: divides both models' logits.
        reduction: see `oprd.core.reduction.position_weights`.

    Raises:
        ValueError: there is no such kind.
    """

    kind: OutputKind
    k: int = 16
    support: Support = "student"
    renormalize: bool = True
    beta: float = 0.5
    temperature: float = 1.0
    reduction: Reduction = "sequence"

    def __post_init__(self) -> None:
        if self.kind not in get_args(OutputKind):
            raise ValueError(
                f"an output loss is one of {', '.join(get_args(OutputKind))}, got {self.kind!r}."
            )

    def __call__(
        self,
        student_hidden: Tensor,
        teacher_hidden: Tensor,
        student_head: LMHead | Tensor,
        teacher_head: LMHead | Tensor,
        mask: Tensor,
        token_ids: Tensor,
    ) -> LossSum:
        """The loss at the mask's positions.

        Args:
            student_hidden: [B, K, student width], or the mask's rows [N, student width].
            teacher_hidden: [B, K, teacher width], or the mask's rows [N, teacher width].
            student_head: an `LMHead`, or its weight [V, student width].
            teacher_head: an `LMHead`, or its weight [V, teacher width].
            mask: [B, K], true where a position is supervised.
            token_ids: [B, K] integers, the rollout; read by `"sampled"` alone.

        Raises:
            ValueError: see the functions of `oprd.core.divergence`.
        """
        pair = (student_hidden, teacher_hidden, student_head, teacher_head, mask)
        temperature, reduction = self.temperature, self.reduction
        match self.kind:
            case "sampled":
                return sampled_token_loss(
                    *pair, token_ids, temperature=temperature, reduction=reduction
                )
            case "topk":
                return topk_loss(
                    *pair,
                    k=self.k,
                    support=self.support,
                    renormalize=self.renormalize,
                    temperature=temperature,
                    reduction=reduction,
                )
            case "reverse_kl" | "forward_kl":
                return full_kl_loss(
                    *pair,
                    direction="reverse" if self.kind == "reverse_kl" else "forward",
                    temperature=temperature,
                    reduction=reduction,
                )
            case "jsd":
                return jsd_loss(*pair, beta=self.beta, temperature=temperature, reduction=reduction)
