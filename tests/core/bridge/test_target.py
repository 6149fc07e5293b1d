import pytest
import torch

from oprd.core.bridge import BridgeFitter
from oprd.core.bridge.heads import HeadPair, HeadStatistics
from oprd.core.bridge.target import target_agreement, target_states
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


def test_a_target_is_the_nearest_state_without_a_distance():
    student, teacher = rows()
    bridge = fitted(student, teacher)
    target = target_states(bridge, PAIR.student, student, teacher)
    met = bridge.project_student(PAIR.student, target) - bridge.project_teacher(
        PAIR.student, teacher.double()
    )
    assert met.abs().max() < 1e-5
    # Nothing moves in directions that the bridge does not see.
    _, _, directions = torch.linalg.svd(bridge.student_projection.double())
    unseen = directions[bridge.rank :]
    assert ((target - student) @ unseen.T).abs().max() < 1e-5


def test_agreement_is_the_share_of_equal_likeliest_tokens():
    student, teacher = rows()
    pair, bridge = heads(40), fitted(student, teacher)
    found = target_agreement(bridge, PAIR.student, student, teacher, pair)
    said = (teacher @ pair.teacher.weight.T).argmax(dim=1)
    target = target_states(bridge, PAIR.student, student, teacher).float()
    before, after = (
        int(((h @ pair.student.weight.T).argmax(dim=1) == said).sum()) for h in (student, target)
    )
    assert found == (ROWS, before, after)


@pytest.mark.parametrize("metric", ["centered", "prior", "fisher"])
def test_heads_that_the_student_can_reach_agree_at_every_target(metric):
    student, teacher = rows()
    # Five directions of logits, and six of states to make them with.
    pair = heads(6)
    bridge = fitted(student, teacher, basis="heads", metric=metric, of=pair)
    found = target_agreement(bridge, PAIR.student, student, teacher, pair)
    assert found.at_target == ROWS > found.before


def test_a_student_that_agrees_unlearns_towards_targets_that_its_head_cannot_reach():
    generator = torch.Generator().manual_seed(2)
    pair = heads(400)
    _, teacher = rows()
    teacher = 3 * teacher
    said = (teacher @ pair.teacher.weight.T).argmax(dim=1)
    # A state along a token's own weights makes it the likeliest one, more often than not.
    student = pair.student.weight[said] + 0.01 * torch.randn(ROWS, STUDENT, generator=generator)
    bridge = fitted(student, teacher, basis="heads", metric="centered", of=pair)
    found = target_agreement(bridge, PAIR.student, student, teacher, pair)
    assert found.at_target < found.before / 2


def test_no_rows_agree_on_nothing():
    student, teacher = rows()
    bridge = fitted(student, teacher)
    found = target_agreement(bridge, PAIR.student, student[:0], teacher[:0], heads(5))
    assert found == (0, 0, 0)
