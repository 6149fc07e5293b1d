"""Two vocabularies, against distributions over classes that are summed token by token."""

import pytest
import torch

from oprd.core.objective import OUTPUT_LOSSES
from oprd.core.output import head
from oprd.core.output.chunked import sum_loss, sum_losses
from oprd.core.output.classes import Classes, merge
from oprd.core.output.divergence import JSD, TopK
from oprd.core.output.head import LMHead
from oprd.core.output.pair import select_pair
from oprd.core.output.skewed import SkewedKL
from tests.core.output.test_divergence import HEADS, MASK, TOKENS, V, setting, student_variables
from tests.core.output.test_joined import parts, value
from tests.reference import divergence as reference

OF_TEACHER, COUNT = V + 8, 9
# Some tokens of either are of no class.
CLASSES = Classes(
    torch.arange(V) * 3 % (COUNT + 1), torch.arange(OF_TEACHER) * 7 % (COUNT + 1), COUNT
)
LOSSES = {
    "reverse_kl": OUTPUT_LOSSES["reverse_kl"](),
    "forward_kl": OUTPUT_LOSSES["forward_kl"](),
    "jsd": JSD(0.3),
    "skewed": SkewedKL(0.3),
    "mirrored": SkewedKL(0.3, mirror=True),
}


def models(kind="weight"):
    """Rows and heads of two models; the teacher's has tokens that the student's has not."""
    student, teacher, student_head, teacher_head = setting(kind=kind)
    longer = torch.cat(
        [teacher_head.weight, torch.randn(OF_TEACHER - V, teacher.shape[-1]).double()]
    )
    bias = None if teacher_head.bias is None else torch.randn(OF_TEACHER).double()
    return (
        student,
        teacher,
        student_head,
        LMHead(longer, bias, teacher_head.scale, teacher_head.softcap),
    )


def over_classes(log, members):
    return torch.stack([log[members == c].exp().sum() for c in range(COUNT)]).log().log_softmax(0)


@pytest.mark.parametrize("chunk_rows", [2, 100])
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_those_of_sums_over_classes(name, kind, chunk_rows, monkeypatch):
    monkeypatch.setattr(head, "CHUNK_ELEMENTS", chunk_rows * OF_TEACHER)
    loss = LOSSES[name]
    student, teacher, student_head, teacher_head = models(kind)
    pair = select_pair(
        student, teacher, student_head, teacher_head, MASK, 0.7, TOKENS, classes=CLASSES
    )
    found = sum_loss(pair, loss, "token")
    variables = student_variables(student, student_head)
    gradients = torch.autograd.grad(found.total, variables)
    expected = torch.zeros((), dtype=torch.float64)
    for b, t in MASK.nonzero().tolist():
        log_p = reference.log_probabilities(student[b, t], parts(student_head), 0.7)
        log_q = reference.log_probabilities(teacher[b, t], parts(teacher_head), 0.7).detach()
        p, q = over_classes(log_p, CLASSES.student), over_classes(log_q, CLASSES.teacher)
        expected = expected + value(loss, p, q)
    torch.testing.assert_close(found.total, expected.detach())
    for gradient, own in zip(gradients, torch.autograd.grad(expected, variables), strict=True):
        rows = MASK if own.ndim == 3 else slice(None)
        torch.testing.assert_close(gradient[rows], own[rows])


@pytest.mark.parametrize("name", LOSSES)
def test_a_class_for_every_token_is_the_loss_over_one_vocabulary(name):
    student, teacher, student_head, teacher_head = setting(kind="weight")
    order = torch.randperm(V)
    classes = Classes(torch.arange(V), torch.arange(V)[order], V)
    moved = LMHead(teacher_head.weight[order], scale=teacher_head.scale)
    one = select_pair(student, teacher, student_head, teacher_head, MASK)
    two = select_pair(student, teacher, student_head, moved, MASK, classes=classes)
    losses = [sum_loss(pair, LOSSES[name], "sequence").total for pair in (one, two)]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_a_class_that_one_model_has_no_token_of_leaves_the_loss_finite(name, dtype):
    student, teacher, student_head, teacher_head = models()
    classes = Classes(torch.arange(V) % (COUNT - 1), torch.arange(OF_TEACHER) % COUNT, COUNT)
    rows = student.detach().to(dtype).requires_grad_()
    heads = (LMHead(of.weight.detach().to(dtype)) for of in (student_head, teacher_head))
    pair = select_pair(rows, teacher.to(dtype), *heads, MASK, classes=classes)
    total = sum_loss(pair, LOSSES[name], "token").total
    (gradient,) = torch.autograd.grad(total, rows)
    assert torch.isfinite(total) and torch.isfinite(gradient).all()


def test_what_is_of_no_class_hides_nothing_however_likely_it_is():
    """All but a tiny part of the probability is of a token that is left out."""
    logits = torch.tensor([[0.0, 1.0, 3.0, 200.0]])
    members = torch.tensor([0, 0, 1, 2])
    found = merge(logits.clone(), members, torch.empty(1, 3)).log_softmax(1)
    torch.testing.assert_close(
        found, torch.stack([logits[:, :2].logsumexp(1), logits[:, 2]], 1).log_softmax(1)
    )


@pytest.mark.parametrize("name", LOSSES)
def test_pairs_that_share_the_positions_are_one_sum_with_one_gradient(name):
    student, teacher, student_head, teacher_head = models("all")
    rows = MASK.nonzero()
    total, gradients = None, None
    variables = student_variables(student, student_head)
    for parts_ in (1, 3):
        masks = [torch.zeros_like(MASK) for _ in range(parts_)]
        for number, (b, t) in enumerate(rows.tolist()):
            masks[number % parts_][b, t] = True
        pairs = [
            select_pair(student, teacher, student_head, teacher_head, mask, classes=CLASSES)
            for mask in masks
        ]
        found = sum_losses(pairs, LOSSES[name], "sequence", MASK)
        own = torch.autograd.grad(found.total, variables)
        if total is not None:
            torch.testing.assert_close(found.total, total)
            torch.testing.assert_close(own[0][MASK], gradients[0][MASK])
            torch.testing.assert_close(own[1:], gradients[1:])
        total, gradients = found.total.detach(), own


def test_probability_that_moves_within_a_class_is_moved_nowhere():
    torch.manual_seed(0)
    states, weight = torch.randn(1, 1, 4).double(), torch.randn(V, 4).double()
    swapped = weight.clone()
    swapped[[0, COUNT]] = weight[[COUNT, 0]]
    members = torch.arange(V) % COUNT
    mask = torch.ones(1, 1, dtype=torch.bool)
    pair = select_pair(
        states, states, weight, swapped, mask, classes=Classes(members, members, COUNT)
    )
    assert abs(sum_loss(pair, LOSSES["reverse_kl"], "token").total) < 1e-12


@pytest.mark.parametrize("loss", [OUTPUT_LOSSES["sampled"](), TopK(4), TopK(4, renormalize=False)])
def test_a_loss_that_looks_at_single_tokens_is_refused(loss):
    pair = select_pair(*models(), MASK, 1.0, TOKENS, classes=CLASSES)
    with pytest.raises(ValueError, match="looks at single tokens"):
        sum_loss(pair, loss, "token")


@pytest.mark.parametrize(
    ("student", "teacher", "count", "message"),
    [
        ([0, 1], [0, 3], 2, "teacher's tokens must be in 0..2, got 0..3"),
        ([-1, 1], [0, 1], 2, "student's tokens must be in 0..2, got -1..1"),
        ([[0], [1]], [0, 1], 2, "student's tokens must be integers"),
        ([0.0, 1.0], [0, 1], 2, "student's tokens must be integers"),
        ([0, 0], [0, 0], 1, "no text in common"),
    ],
)
def test_what_is_no_partition_is_refused(student, teacher, count, message):
    with pytest.raises(ValueError, match=message):
        Classes(torch.tensor(student), torch.tensor(teacher), count)


def test_classes_of_other_heads_or_beside_joined_tokens_are_refused():
    with pytest.raises(
        ValueError, match=f"{V} and {OF_TEACHER} tokens, and the heads have {V} and"
    ):
        select_pair(*setting(), MASK, classes=CLASSES)
    with pytest.raises(ValueError, match="belong in one class"):
        select_pair(*models(), MASK, joined=(0, 1), classes=CLASSES)
