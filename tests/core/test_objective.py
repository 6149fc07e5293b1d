from dataclasses import FrozenInstanceError

import pytest
import torch

from oprd.core.objective import OUTPUT_LOSSES, STATE_LOSSES, Term, make_loss, objective
from oprd.core.output.chunked import output_loss
from oprd.core.reduction import LossSum
from tests.core.states.one_layer import representation_loss
from tests.reference import divergence, representation

B, K, V, D = 3, 5, 11, 4
RESPONSE = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
WINDOW = torch.tensor([[0, 0, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
TOKENS = torch.arange(B * K).view(B, K) % V
VALUES = {
    "sampled": lambda p, q, b, t: divergence.sampled_token(p, q, int(TOKENS[b, t])),
    "topk": lambda p, q, b, t: divergence.topk(p, q, 3, "union", True),
    "reverse_kl": lambda p, q, b, t: divergence.reverse_kl(p, q),
    "forward_kl": lambda p, q, b, t: divergence.forward_kl(p, q),
    "jsd": lambda p, q, b, t: divergence.jsd(p, q, 0.3),
    "skewed_kl": lambda p, q, b, t: divergence.skewed_kl(p, q, 0.1, False),
}


def made(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw(B, K, D).requires_grad_(), draw(B, K, D), draw(V, D).requires_grad_(), draw(V, D)


PARAMETERS = {"topk": {"k": 3, "support": "union"}, "jsd": {"beta": 0.3}}


def output(kind, *arguments, reduction="sequence"):
    loss = OUTPUT_LOSSES[kind](**PARAMETERS.get(kind, {}))
    return output_loss(loss, *arguments, temperature=0.7, reduction=reduction)


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("reduction", ["sequence", "token"])
def test_the_objective_is_the_sum_of_its_parts_each_over_its_own_count(kind, reduction):
    student, teacher, head, teacher_head = made()
    outputs = output(
        kind, student, teacher, head, teacher_head, RESPONSE, TOKENS, reduction=reduction
    )
    states = representation_loss(student, teacher, WINDOW, reduction=reduction)
    value = objective([Term("representation", 10.0, states), Term("output", 0.5, outputs)])

    heads = [(weight, None, 1.0, None) for weight in (head, teacher_head)]
    total, count = divergence.total(
        VALUES[kind], student, teacher, *heads, RESPONSE, 0.7, reduction
    )
    state_total, state_count = representation.representation_loss(
        student, teacher, WINDOW, False, reduction
    )
    assert (outputs.count, states.count) == (count, state_count)
    expected = 0.5 * total / count + 10.0 * state_total / state_count
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7)
    variables = (student, head)
    for gradient, truth in zip(
        torch.autograd.grad(value, variables),
        torch.autograd.grad(expected, variables),
        strict=True,
    ):
        torch.testing.assert_close(gradient, truth, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", VALUES)
def test_gathered_rows_give_the_loss_of_the_states_they_come_from(kind):
    student, teacher, *heads = made()
    whole = output(kind, student, teacher, *heads, RESPONSE, TOKENS)
    rows = output(kind, student[RESPONSE], teacher[RESPONSE], *heads, RESPONSE, TOKENS)
    assert torch.equal(rows.total, whole.total)
    assert torch.equal(*(torch.autograd.grad(one.total, student)[0] for one in (rows, whole)))


def test_rows_of_another_number_are_refused_with_both_shapes():
    student, teacher, *heads = made()
    with pytest.raises(ValueError, match=r"or the mask's rows alone, \[6, 4\], got \[5, 4\]"):
        output("jsd", student[RESPONSE][1:], teacher, *heads, RESPONSE, TOKENS)


def test_a_batch_in_parts_adds_up_to_the_whole():
    student, teacher, *_ = made()
    count = representation_loss(student, teacher, WINDOW).count
    parts = []
    for row in range(B):
        loss = representation_loss(student[row, None], teacher[row, None], WINDOW[row, None])
        parts.append(objective([Term("representation", 2.0, loss._replace(count=count))]))
    whole = objective([Term("representation", 2.0, representation_loss(student, teacher, WINDOW))])
    torch.testing.assert_close(sum(parts), whole)


def test_nothing_supervised_is_a_finite_zero_with_a_graph():
    student, teacher, *heads = made()
    nothing = torch.zeros(B, K, dtype=torch.bool)
    terms = [
        Term("representation", 1.0, representation_loss(student, teacher, nothing)),
        Term("output", 1.0, output("topk", student, teacher, *heads, nothing, TOKENS)),
    ]
    value = objective(terms)
    assert value == 0
    value.backward()
    assert not student.grad.any()


def test_an_objective_without_a_term_is_refused():
    with pytest.raises(ValueError, match="at least one term"):
        objective([])


def test_terms_with_counts_of_zero_do_not_divide_by_zero():
    term = Term("output", 1.0, LossSum(torch.tensor(0.0), torch.tensor(0.0)))
    assert term.mean == 0


def test_every_loss_of_the_table_has_a_reference_here():
    assert set(VALUES) == set(OUTPUT_LOSSES)


def test_an_unknown_name_is_refused_with_those_there_are_and_the_closest():
    with pytest.raises(ValueError, match=r"one of sampled, topk, .*mean topk\?\), got 'topq'"):
        make_loss(OUTPUT_LOSSES, "topq", {}, "output_loss")


def test_an_unknown_parameter_is_refused_with_those_the_loss_takes():
    with pytest.raises(ValueError, match=r"output_loss_kwargs: 'topk' takes k, support, .*'kk'"):
        make_loss(OUTPUT_LOSSES, "topk", {"kk": 3}, "output_loss")
    with pytest.raises(ValueError, match=r"'reverse_kl' takes no parameters, got 'k'"):
        make_loss(OUTPUT_LOSSES, "reverse_kl", {"k": 3}, "output_loss")


def test_every_loss_is_a_value():
    for table in (STATE_LOSSES, OUTPUT_LOSSES):
        for kind in table.values():
            assert kind() == kind() and hash(kind()) == hash(kind())
            with pytest.raises(FrozenInstanceError):
                kind().anything = 1
