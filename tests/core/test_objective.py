import pytest
import torch

from oprd.core.objective import OutputLoss, Term, objective
from oprd.core.reduction import LossSum
from oprd.core.representation import representation_loss
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
}


def made(seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return draw(B, K, D).requires_grad_(), draw(B, K, D), draw(V, D).requires_grad_(), draw(V, D)


def output_loss(kind, reduction="sequence"):
    return OutputLoss(kind, k=3, support="union", beta=0.3, temperature=0.7, reduction=reduction)


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("reduction", ["sequence", "token"])
def test_the_objective_is_the_sum_of_its_parts_each_over_its_own_count(kind, reduction):
    student, teacher, head, teacher_head = made()
    output = output_loss(kind, reduction)(student, teacher, head, teacher_head, RESPONSE, TOKENS)
    states = representation_loss(student, teacher, WINDOW, reduction=reduction)
    value = objective([Term("representation", 10.0, states), Term("output", 0.5, output)])

    heads = [(weight, None, 1.0, None) for weight in (head, teacher_head)]
    total, count = divergence.total(
        VALUES[kind], student, teacher, *heads, RESPONSE, 0.7, reduction
    )
    state_total, state_count = representation.representation_loss(
        student, teacher, WINDOW, False, reduction
    )
    assert (output.count, states.count) == (count, state_count)
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
    loss = output_loss(kind)
    whole = loss(student, teacher, *heads, RESPONSE, TOKENS)
    rows = loss(student[RESPONSE], teacher[RESPONSE], *heads, RESPONSE, TOKENS)
    assert torch.equal(rows.total, whole.total)
    assert torch.equal(*(torch.autograd.grad(one.total, student)[0] for one in (rows, whole)))


def test_rows_of_another_number_are_refused_with_both_shapes():
    student, teacher, *heads = made()
    with pytest.raises(ValueError, match=r"or the mask's rows alone, \[6, 4\], got \[5, 4\]"):
        output_loss("jsd")(student[RESPONSE][1:], teacher, *heads, RESPONSE, TOKENS)


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
        Term("output", 1.0, output_loss("topk")(student, teacher, *heads, nothing, TOKENS)),
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


def test_an_unknown_output_loss_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"one of sampled, topk, .*got 'top1'"):
        OutputLoss("top1")
