import pytest
import torch

from oprd.core.output import head
from oprd.core.output.diagnostics import output_diagnostics
from oprd.core.output.pair import select_pair
from tests.core.output.test_divergence import MASK, TOKENS, V, setting
from tests.reference import divergence as reference


def pair(*arguments, mask=MASK, temperature=1.0):
    return select_pair(*arguments, mask, temperature, TOKENS)


def by_hand(arguments, k, temperature):
    student, teacher, *heads = arguments
    heads = [(h.weight, h.bias, h.scale, h.softcap) for h in heads]
    sums = torch.zeros(5, dtype=torch.float64)
    for b, t in MASK.nonzero().tolist():
        log_p = reference.log_probabilities(student[b, t], heads[0], temperature)
        log_q = reference.log_probabilities(teacher[b, t], heads[1], temperature)
        top_p, top_q = (set(x.argsort(descending=True)[:k].tolist()) for x in (log_p, log_q))
        entropies = [-(x.exp() * x).sum() for x in (log_p, log_q)]
        sampled = (log_p - log_q)[TOKENS[b, t]]
        overlap = torch.tensor(len(top_p & top_q) / k)
        sums += torch.stack([overlap, *entropies, reference.reverse_kl(log_p, log_q), sampled])
    return sums.detach()


@pytest.mark.parametrize(("k", "temperature"), [(16, 1.0), (4, 0.6)])
@pytest.mark.parametrize("budget", [1, 3 * V, 2**24])
def test_sums_are_those_of_the_definitions_for_any_chunk_size(k, temperature, budget, monkeypatch):
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", budget)
    arguments = setting()
    *sums, count = output_diagnostics(pair(*arguments, temperature=temperature), k=k)
    assert count == MASK.sum()
    assert not any(value.requires_grad for value in sums)
    torch.testing.assert_close(torch.stack(sums), by_hand(arguments, k, temperature))


def test_identical_models_overlap_fully_and_do_not_diverge():
    student, _, student_head, _ = setting()
    sums = output_diagnostics(pair(student, student, student_head, student_head))
    assert sums.topk_overlap == sums.count == 8
    assert sums.reverse_kl == 0 and sums.policy_gradient_loss == 0
    assert torch.equal(sums.student_entropy, sums.teacher_entropy)


def test_an_empty_mask_gives_zeros():
    empty = torch.zeros_like(MASK)
    assert all(value == 0 for value in output_diagnostics(pair(*setting(), mask=empty)))


@pytest.mark.parametrize("k", [0, V + 1])
def test_k_outside_the_vocabulary_is_refused(k):
    with pytest.raises(ValueError, match=f"between 1 and the vocabulary's {V} tokens, got {k}"):
        output_diagnostics(pair(*setting()), k=k)
