import pytest
import torch

from oprd.core.bridge import BridgeFitter
from oprd.core.bridge.heads import HeadPair, HeadStatistics
from oprd.core.bridge.pull import pull, pulled_states
from oprd.core.layers import LayerPair
from oprd.core.output.head import LMHead

PAIR, STUDENT, TEACHER, ROWS = LayerPair(2, 3), 6, 8, 200


def rows(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(ROWS, width, generator=generator) for width in (STUDENT, TEACHER))


def heads(vocab_size, seed=1):
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = (
        LMHead(torch.randn(vocab_size, width, generator=generator)) for width in (STUDENT, TEACHER)
    )
    return HeadPair(ours, theirs)


def fitted(student, teacher, *, basis="pca", rank=3, metric=None, of=None):
    statistics = HeadStatistics(of, metric) if metric else None
    fitter = BridgeFitter([PAIR], STUDENT, TEACHER, heads=statistics)
    fitter.update({PAIR.student: student}, {PAIR.teacher: teacher})
    return fitter.solve(rank, basis=basis, ridge=0.0 if metric else 0.1)


def divergence(pair, student, teacher):
    p = (student.double() @ pair.student.weight.T.double()).softmax(dim=1)
    q = (teacher.double() @ pair.teacher.weight.T.double()).softmax(dim=1)
    return float((p * (p / q).log()).sum())


def test_the_pull_is_gradient_descent_on_the_states():
    student, teacher = rows()
    bridge = fitted(student, teacher)
    h = student.double().requires_grad_()
    sizes = torch.linalg.svdvals(bridge.student_projection.double())
    for _ in range(10):
        apart = bridge.project_student(2, h) - bridge.project_teacher(2, teacher.double())
        (gradient,) = torch.autograd.grad(apart.square().sum() / 2, h)
        h = (h - gradient / sizes[0] ** 2).detach().requires_grad_()
    torch.testing.assert_close(
        pulled_states(bridge, PAIR.student, student, teacher), h.detach(), rtol=0, atol=1e-5
    )


def test_many_steps_lead_to_the_nearest_state_without_a_distance():
    student, teacher = rows()
    bridge = fitted(student, teacher)
    target = pulled_states(bridge, PAIR.student, student, teacher, steps=10_000)
    met = bridge.project_student(2, target) - bridge.project_teacher(2, teacher.double())
    assert met.abs().max() < 1e-5
    # Nothing moves in directions that the bridge does not see.
    _, _, directions = torch.linalg.svd(bridge.student_projection.double())
    assert ((target - student) @ directions[bridge.rank :].T).abs().max() < 1e-5


def test_divergences_are_those_of_both_models_next_tokens(monkeypatch):
    # Several chunks of rows.
    monkeypatch.setattr("oprd.core.output.head.CHUNK_ELEMENTS", 40 * 7)
    student, teacher = rows()
    pair, bridge = heads(40), fitted(student, teacher)
    found = pull(bridge, PAIR.student, student, teacher, pair)
    pulled = pulled_states(bridge, PAIR.student, student, teacher)
    expected = (ROWS, *(divergence(pair, h, teacher) for h in (student, pulled)))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("metric", ["centered", "prior", "fisher"])
def test_heads_that_the_student_can_reach_pull_it_to_the_teacher(metric):
    student, teacher = rows()
    # Five directions of logits, and six of states to make them with.
    pair = heads(6)
    bridge = fitted(student, teacher, basis="heads", metric=metric, of=pair)
    found = pull(bridge, PAIR.student, student, teacher, pair)
    assert found.after < found.before / 2
    target = pulled_states(bridge, PAIR.student, student, teacher, steps=100_000)
    assert divergence(pair, target, teacher) == pytest.approx(0, abs=1e-3 * found.before)


def test_heads_that_it_cannot_reach_pull_a_student_away_that_is_as_near_as_it_can_be():
    pair = heads(400)
    student, teacher = rows()
    log_q = (teacher @ pair.teacher.weight.T).log_softmax(dim=1)
    student = student.requires_grad_()
    optimizer = torch.optim.Adam([student], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        log_p = (student @ pair.student.weight.T).log_softmax(dim=1)
        (log_p.exp() * (log_p - log_q)).sum().backward()
        optimizer.step()
    student = student.detach()
    bridge = fitted(student, teacher, basis="heads", metric="centered", of=pair)
    found = pull(bridge, PAIR.student, student, teacher, pair)
    assert found.after > found.before


def test_no_rows_have_no_divergence():
    student, teacher = rows()
    bridge = fitted(student, teacher)
    assert pull(bridge, PAIR.student, student[:0], teacher[:0], heads(5)) == (0, 0.0, 0.0)
