"""Gradients of several objectives on the same rollouts, and their mean and spread over draws.

Letters: B sequences, K response tokens, N response positions of a batch, V vocabulary, D width, P
parameters.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lab.methods import METHODS, OUTPUT_ONLY, PLAIN
from oprd.core.capture import num_layers
from oprd.core.layers import pair_layers, select_layers
from oprd.core.objective import Term, objective
from oprd.core.output.chunked import output_loss
from oprd.core.output.divergence import ForwardKL, ReverseKL
from oprd.core.output.head import LMHead
from oprd.core.output.loss import OutputLoss
from oprd.core.reduction import LossSum
from oprd.core.states.comparison import LayerComparison
from oprd.models.batch import MicroBatch
from oprd.models.heads import lm_head
from oprd.models.reading import read


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

    Attributes:
        batch: the rollouts.
    """

    def __init__(self, student: Any, teacher: Any, batch: MicroBatch) -> None:
        self.batch = batch
        self._parameters = list(student.parameters())
        self._heads = lm_head(student), lm_head(teacher).detach()
        self._layers = select_layers("all", num_layers(student))
        with torch.no_grad():
            self._teacher = dict(read(teacher, batch.view, self._layers).states)
        self._student = dict(read(student, batch.view, self._layers).states)

    def gradient(self, method: str, token_ids: Tensor | None = None) -> tuple[Tensor, ...]:
        """The gradient of a method's mean loss over the batch, one tensor for each parameter.

        Args:
            method: of `lab.methods.METHODS`: "OPRD" itself or an output-space loss alone.
            token_ids: [B, K] in the place of the rollouts' own, for the output terms to look at;
                what the models read stays.

        Raises:
            ValueError: it is another method.
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
        tokens = self.batch.response_ids.repeat(count, 1, 1)
        tokens[:, self.batch.response] = drawn.T
        return tokens

    @torch.no_grad()
    def divergence(self) -> float:
        """δ, the mean over positions of KL(p‖q) + KL(q‖p)."""
        both = [
            output_loss(loss, *self._last(), self.batch.response, reduction="token")
            for loss in (ReverseKL(), ForwardKL())
        ]
        return float(sum(total / count for total, count in both))

    def _loss(self, method: str, token_ids: Tensor | None) -> LossSum:
        output, settings = loss_of(method), METHODS[method]
        if settings != PLAIN and not OUTPUT_ONLY.items() <= settings.items():
            raise ValueError(f"{method!r} is neither plain OPRD nor an output-space loss alone.")
        if output is not None:
            ids = self.batch.response_ids if token_ids is None else token_ids
            return output_loss(output, *self._last(), self.batch.response, ids)
        pairs = pair_layers(self._layers, len(self._layers), len(self._layers))
        comparison = LayerComparison(dict(self._teacher), pairs, self.batch.positions)
        for layer, rows in self._student.items():
            comparison(layer, rows)
        return comparison.result().loss

    def _last(self) -> tuple[Tensor, Tensor, LMHead, LMHead]:
        """Both models' last states and heads."""
        last = self._layers[-1]
        return self._student[last], self._teacher[last], *self._heads


def sampled_token_variance(student: Any, teacher: Any, batch: MicroBatch) -> float:
    """Tr Cov of the sampled-token gradient over the tokens ŷ_t ~ p_t at fixed prefixes, exactly.

    At position t the token v contributes w_t u_v J_tᵀ (1_v − p), with u = log p − log q, J_t the
    Jacobian [V, P] of the student's logits and w_t the position's weight in the mean loss of the
    batch. Positions are drawn independently, so that

        Tr Cov = Σ_t w_t² ( Σ_v p_v u_v² ‖J_tᵀ (1_v − p)‖² − ‖J_tᵀ Σ_v p_v u_v (1_v − p)‖² )

    and every norm is a quadratic form of J_t J_tᵀ. A mean over drawn tokens would need very many:
    near the teacher most of it comes from rare tokens with large ratios.

    Args:
        student: a causal language model, with gradients.
        teacher: one of the same vocabulary.
        batch: rollouts, read one at a time.
    """
    total = 0.0
    for number in range(len(batch.response)):
        one = _sequence(batch, number)
        with torch.no_grad():
            log_q = _log_probs(teacher, one)
        # The other kernels have no batched backward.
        with sdpa_kernel(SDPBackend.MATH):
            log_p = _log_probs(student, one)
            variances = [_token_variance(student, p, q) for p, q in zip(log_p, log_q, strict=True)]
        weight = 1 / (len(variances) * len(batch.response))
        total += weight**2 * sum(variances)
    return total


def _token_variance(student: Any, log_p: Tensor, log_q: Tensor) -> float:
    """Of one position: the bracket above, from log p [V] with a graph and log q [V]."""
    # J_tᵀ (1_v − p) is the gradient of log p_v.
    slopes = torch.autograd.grad(
        log_p,
        list(student.parameters()),
        torch.eye(len(log_p)),
        is_grads_batched=True,
        retain_graph=True,
        allow_unused=True,
    )
    flat = [slope.flatten(1).double() for slope in slopes if slope is not None]
    gram = torch.stack([slope @ slope.T for slope in flat]).sum(dim=0)
    log_p = log_p.detach().double()
    p, u = log_p.exp(), log_p - log_q.double()
    return float(p * u.square() @ gram.diagonal() - (p * u) @ gram @ (p * u))


def _log_probs(model: Any, batch: MicroBatch) -> Tensor:
    """Next-token log p [N, V] at the response tokens of a batch."""
    last = num_layers(model)
    rows = read(model, batch.view, [last]).states[last]
    head = lm_head(model)
    return (rows @ head.weight.T).float().log_softmax(dim=1)


def _sequence(batch: MicroBatch, number: int) -> MicroBatch:
    """One sequence of a batch."""
    rows, view = slice(number, number + 1), batch.view
    return MicroBatch.of_rollouts(
        view.input_ids[rows],
        view.attention_mask[rows],
        batch.response[rows],
        batch.positions[rows],
        response_count=batch.response_count,
        position_count=batch.position_count,
    )


@cache
def loss_of(method: str) -> OutputLoss | None:
    """The output-space loss of a method of the lab, None where it has none.

    Raises:
        KeyError: the lab has no such method.
    """
    from oprd import OPRDConfig

    return OPRDConfig(output_dir="unused", use_cpu=True, bf16=False, **METHODS[method]).output
