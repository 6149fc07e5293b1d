"""Tokens that are one action, against a vocabulary in which they are one token."""

import pytest
import torch

from oprd.core.objective import OUTPUT_LOSSES
from oprd.core.output.chunked import sum_loss
from oprd.core.output.diagnostics import output_diagnostics
from oprd.core.output.divergence import JSD, TopK
from oprd.core.output.pair import select_pair
from oprd.core.output.skewed import SkewedKL
from tests.core.output.test_divergence import HEADS, MASK, TOKENS, V, setting, student_variables
from tests.reference import divergence as reference

GROUP = (2, 0, 5)
LOSSES = {
    **{name: kind() for name, kind in OUTPUT_LOSSES.items() if name != "topk"},
    "jsd_0.3": JSD(0.3),
    "mirrored": SkewedKL(0.3, mirror=True),
    **{
        f"top {support}, {'renormalized' if renormalize else 'truncated'}": TopK(
            4, support, renormalize
        )
        for support in ("student", "teacher", "union")
        for renormalize in (True, False)
    },
}


def naive(loss, log_p, log_q, token):
    """The value at one position, of distributions in which the group is one token."""
    kept = [v for v in range(V) if v not in GROUP[1:]]

    def one(log):
        merged = log.clone()
        merged[GROUP[0]] = log[list(GROUP)].logsumexp(0)
        return merged[kept]

    token = kept.index(GROUP[0] if token in GROUP else token)
    return value(loss, one(log_p), one(log_q), token)


def value(loss, p, q, token=0):
    """The reference's, of log-probabilities at one position."""
    match loss:
        case TopK():
            return reference.topk(p, q, loss.k, loss.support, loss.renormalize)
        case JSD():
            return reference.jsd(p, q, loss.beta)
        case SkewedKL():
            return reference.skewed_kl(p, q, loss.alpha, loss.mirror)
    kinds = {
        "SampledToken": lambda: reference.sampled_token(p, q, token),
        "ReverseKL": lambda: reference.reverse_kl(p, q),
        "ForwardKL": lambda: reference.forward_kl(p, q),
    }
    return kinds[type(loss).__name__]()


def parts(head):
    return head.weight, head.bias, head.scale, head.softcap


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_those_of_one_token(name, kind):
    loss = LOSSES[name]
    student, teacher, student_head, teacher_head = setting(kind=kind)
    # Some of the rollout's tokens are of the group.
    tokens = TOKENS.clone()
    tokens[MASK] = torch.tensor([GROUP[n % 3] if n % 2 else n % V for n in range(int(MASK.sum()))])
    pair = select_pair(student, teacher, student_head, teacher_head, MASK, 0.7, tokens, GROUP)
    found = sum_loss(pair, loss, "token")
    variables = student_variables(student, student_head)
    gradients = torch.autograd.grad(found.total, variables)
    expected = torch.zeros((), dtype=torch.float64)
    for b, t in MASK.nonzero().tolist():
        log_p = reference.log_probabilities(student[b, t], parts(student_head), 0.7)
        log_q = reference.log_probabilities(teacher[b, t], parts(teacher_head), 0.7).detach()
        expected = expected + naive(loss, log_p, log_q, int(tokens[b, t]))
    torch.testing.assert_close(found.total, expected.detach())
    for gradient, own in zip(gradients, torch.autograd.grad(expected, variables), strict=True):
        torch.testing.assert_close(
            gradient[MASK] if own.ndim == 3 else gradient, own[MASK] if own.ndim == 3 else own
        )


def test_which_member_was_written_makes_no_difference():
    models = setting()
    totals = set()
    for token in GROUP:
        tokens = torch.full_like(TOKENS, token)
        pair = select_pair(*models, MASK, 1.0, tokens, GROUP)
        totals.add(sum_loss(pair, OUTPUT_LOSSES["sampled"](), "token").total.item())
    assert len(totals) == 1


def test_a_student_that_ends_otherwise_than_its_teacher_is_no_further_from_it():
    """Probability moved within the group is moved nowhere."""
    torch.manual_seed(0)
    states = torch.randn(1, 1, 4, dtype=torch.float64)
    weight = torch.randn(V, 4, dtype=torch.float64)
    swapped = weight.clone()
    swapped[[2, 0]] = weight[[0, 2]]
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss = OUTPUT_LOSSES["reverse_kl"]()
    apart = sum_loss(select_pair(states, states, weight, swapped, mask), loss, "token").total
    pair = select_pair(states, states, weight, swapped, mask, joined=(0, 2))
    assert apart > 0.01 and abs(sum_loss(pair, loss, "token").total) < 1e-12
    diagnosed = output_diagnostics(
        select_pair(states, states, weight, swapped, mask, 1.0, torch.tensor([[2]]), (0, 2)), k=4
    )
    assert all(torch.isfinite(value) for value in diagnosed)
    assert abs(diagnosed.reverse_kl) < 1e-12 and abs(diagnosed.policy_gradient_loss) < 1e-12


@pytest.mark.parametrize("group", [(1,), (1, 1), (0, V), (-1, 2)])
def test_what_is_no_group_of_tokens_is_refused(group):
    with pytest.raises(ValueError, match="tokens that are one action must be several of"):
        select_pair(*setting(), MASK, joined=group)
