"""Gradients of several objectives on the same rollouts, and their mean and spread over draws.

Letters: B sequences, K response tokens, N response positions of a batch, V vocabulary, D width.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lab.runs import METHODS
from oprd.core.capture import num_layers
from oprd.core.head import LMHead
from oprd.core.layers import pair_layers, select_layers
from oprd.core.objective import OutputKind, OutputLoss, Term, objective
from oprd.core.reduction import LossSum
from oprd.core.representation import LayerComparison
from oprd.training.batch import MicroBatch
from oprd.training.heads import lm_head
from oprd.training.reading import read


class GradientMoments:
    """Mean and spread of a gradient g over independent draws, added one at a time.

        Tr Cov g ≈ 1/(n−1) Σ_i ‖g_i − ḡ‖²        ‖E g‖² ≈ ‖ḡ‖² − Tr Cov g / n

    Neither estimate has a bias; the second is the mean of g_i · g_j over all pairs of different
    draws, and may be negative where the noise hides the mean. The square of the mean's norm alone
    would count a share of the noise as signal.
    """

    def __init__(self) -> None:
        self.draws = 0
        # Differences from the first draw: those of draws that are the same are zeros, so that the
        # variance of a deterministic gradient is exactly zero and no rounding error.
        self._first = torch.empty(0)
        self._sum = torch.empty(0)
        self._squares = 0.0

    def add(self, gradient: Sequence[Tensor]) -> None:
        """Add a draw: one tensor for each parameter."""
        flat = torch.cat([part.flatten().double() for part in gradient])
        if self.draws == 0:
            self._first, self._sum = flat, torch.zeros_like(flat)
        difference = flat - self._first
        self._sum += difference
        self._squares += float(difference.square().sum())
        self.draws += 1

    @property
    def mean(self) -> Tensor:
        """ḡ, all parameters in one vector, float64."""
        return self._first + self._sum / self.draws

    @property
    def variance(self) -> float:
        """Tr Cov g.

        Raises:
            ZeroDivisionError: there are fewer than two draws.
        """
        about_first = float(self._sum.square().sum()) / self.draws
        return (self._squares - about_first) / (self.draws - 1)

    @property
    def squared_mean(self) -> float:
        """‖E g‖²."""
        return float(self.mean.square().sum()) - self.variance / self.draws

    @property
    def snr(self) -> float:
        """‖E g‖² / Tr Cov g, infinite where draws do not differ."""
        return self.squared_mean / self.variance if self.variance else math.inf


class Objectives:
    """What methods of the lab descend on a batch of rollouts, from one forward pass of each model.

    Args:
        student: a causal language model, with gradients.
        teacher: one of the same shape.
        batch: rollouts with N response tokens, all of them supervised.
    """

    def __init__(self, student: Any, teacher: Any, batch: MicroBatch) -> None:
        self._batch = batch
        self._parameters = list(student.parameters())
        self._heads = lm_head(student), lm_head(teacher).detach()
        self._layers = select_layers("all", num_layers(student))
        with torch.no_grad():
            self._teacher = dict(read(teacher, batch, self._layers).states)
        self._student = dict(read(student, batch, self._layers).states)

    def gradient(self, method: str, token_ids: Tensor | None = None) -> tuple[Tensor, ...]:
        """The gradient of a method's mean loss over the batch, one tensor for each parameter.

        Args:
            method: of `lab.runs.METHODS`, of one term.
            token_ids: [B, K] in the place of the rollouts' own, for the output terms to look at;
                what the models read stays.
        """
        loss = objective([Term(method, 1.0, self._loss(method, token_ids))])
        return torch.autograd.grad(
            loss, self._parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )

    def draw_tokens(self, count: int, generator: torch.Generator) -> Tensor:
        """[count, B, K] tokens ŷ_t ~ p_t at the prefixes of the batch, its own where padded."""
        head = self._heads[0].detach()
        rows = self._student[self._layers[-1]].detach()
        logits = rows.new_empty(len(rows), head.vocab_size, dtype=torch.float32)
        p = head.logits(rows, out=logits).softmax(dim=1)
        drawn = torch.multinomial(p, count, replacement=True, generator=generator)
        tokens = self._batch.response_ids.repeat(count, 1, 1)
        tokens[:, self._batch.response] = drawn.T
        return tokens

    @torch.no_grad()
    def divergence(self) -> float:
        """δ, the mean over positions of KL(p‖q) + KL(q‖p)."""
        kinds: tuple[OutputKind, ...] = ("reverse_kl", "forward_kl")
        both = [
            OutputLoss(kind, reduction="token")(
                *self._last(), self._batch.response, self._batch.response_ids
            )
            for kind in kinds
        ]
        return float(sum(total / count for total, count in both))

    def _loss(self, method: str, token_ids: Tensor | None) -> LossSum:
        output = output_loss(method)
        if output is not None:
            ids = self._batch.response_ids if token_ids is None else token_ids
            return output(*self._last(), self._batch.response, ids)
        pairs = pair_layers(self._layers, len(self._layers), len(self._layers))
        comparison = LayerComparison(dict(self._teacher), pairs, self._batch.positions)
        for layer, rows in self._student.items():
            comparison(layer, rows)
        return comparison.result().loss

    def _last(self) -> tuple[Tensor, Tensor, LMHead, LMHead]:
        """Both models' last states and heads."""
        last = self._layers[-1]
        return self._student[last], self._teacher[last], *self._heads


@cache
def output_loss(method: str) -> OutputLoss | None:
    """The output-space loss of a method of the lab, None where it has none.

    Raises:
        KeyError: the lab has no such method.
    """
    from oprd import OPRDConfig

    return OPRDConfig(output_dir="unused", use_cpu=True, bf16=False, **METHODS[method]).output
