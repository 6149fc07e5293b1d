import math
import re

import pytest
import torch

from lab.gradients import GradientMoments, Objectives, sampled_token_variance
from tests.lab.theory import models, rollouts


@pytest.fixture(scope="module")
def at():
    pair = models()
    return Objectives(pair.student, pair.teacher, rollouts(pair))


def flat(gradient):
    return torch.cat([part.flatten() for part in gradient]).double()


def logits(model, batch):
    """[N, V] at the response tokens, by a plain forward pass of each rollout."""
    rows = []
    for ids, mask, response in zip(
        batch.view.input_ids, batch.view.attention_mask, batch.response, strict=True
    ):
        length = int(response.sum())
        rows.append(model(ids[mask.bool()][None]).logits[0, -length - 1 : -1])
    return torch.cat(rows)


def test_the_moments_are_those_of_the_definition():
    draws = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).double() + 1
    moments = GradientMoments()
    for draw in draws:
        moments.add([draw[:2], draw[2:].reshape(3, 1)])
    pairs = [draws[i] @ draws[j] for i in range(7) for j in range(7) if i != j]
    assert moments.variance == pytest.approx(float(draws.var(dim=0).sum()))
    assert moments.squared_mean == pytest.approx(float(sum(pairs)) / len(pairs))
    assert moments.snr == pytest.approx(moments.squared_mean / moments.variance)
    torch.testing.assert_close(moments.mean, draws.mean(dim=0))


def test_draws_that_do_not_differ_have_no_variance_at_all():
    moments = GradientMoments()
    for _ in range(3):
        moments.add([torch.tensor([0.1, 1e8 / 3])])
    assert moments.variance == 0
    assert moments.snr == math.inf


def test_the_gradient_of_the_reverse_kl_is_that_of_its_definition(at):
    pair = models()
    batch = rollouts(pair)
    log_p = logits(pair.student, batch).log_softmax(dim=1)
    log_q = logits(pair.teacher, batch).log_softmax(dim=1)
    weights = (batch.response / batch.response.sum(dim=1, keepdim=True))[batch.response]
    kl = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    loss = (kl * weights).sum() / len(batch.response)
    expected = flat(torch.autograd.grad(loss, list(pair.student.parameters())))
    torch.testing.assert_close(flat(at.gradient("reverse KL")), expected, rtol=1e-3, atol=1e-6)
    backward = (log_q.exp() * (log_q - log_p)).sum(dim=1)
    assert at.divergence() == pytest.approx((kl + backward).mean().item(), rel=1e-4)


def test_drawn_tokens_have_the_gradient_of_the_reverse_kl_as_mean_and_the_exact_variance(at):
    exact = flat(at.gradient("reverse KL"))
    moments = GradientMoments()
    for tokens in at.draw_tokens(300, torch.Generator().manual_seed(0)):
        moments.add(at.gradient("top-1", tokens))
    # ‖ḡ − E g‖² is Tr Cov / n on average.
    error = float((moments.mean - exact).square().sum())
    assert error < 2 * moments.variance / moments.draws
    assert error < 0.5 * float(exact.square().sum())
    pair = models()
    variance = sampled_token_variance(pair.student, pair.teacher, at.batch)
    assert moments.variance == pytest.approx(variance, rel=0.2)


@pytest.mark.parametrize("method", ["OPRD", "reverse KL", "top-4 of Eq. 5"])
def test_drawn_tokens_do_not_enter_other_gradients(at, method):
    moments = GradientMoments()
    for tokens in at.draw_tokens(3, torch.Generator().manual_seed(0)):
        moments.add(at.gradient(method, tokens))
    assert moments.variance == 0
    assert moments.squared_mean > 0


def test_drawn_tokens_follow_the_student(at):
    pair = models()
    batch = rollouts(pair)
    p = logits(pair.student, batch).softmax(dim=1).detach()
    tokens = at.draw_tokens(4000, torch.Generator().manual_seed(0))
    assert torch.equal(
        tokens[:, ~batch.response], batch.response_ids[~batch.response].expand(4000, -1)
    )
    seen = torch.zeros_like(p)
    for drawn in tokens[:, batch.response]:
        seen[torch.arange(len(p)), drawn] += 1 / 4000
    assert float((seen - p).abs().max()) < 0.05


@pytest.mark.parametrize("method", ["last layer", "OPRD, unit length", "top-1 + OPRD"])
def test_a_method_of_other_settings_is_refused(at, method):
    with pytest.raises(ValueError, match=re.escape(method)):
        at.gradient(method)
