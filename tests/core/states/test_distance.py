import pytest
import torch

from oprd.core.states.distance import SquaredDistance, row_distances
from tests.core.states.one_layer import representation_loss
from tests.reference import representation as reference

MASK = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()


def states(seed: int = 0, dtype: torch.dtype = torch.float32, width: int = 7):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, *MASK.shape, width, generator=generator).to(dtype)
    return student.requires_grad_(), teacher.requires_grad_()


@pytest.mark.parametrize("reduction", ["sequence", "token"])
@pytest.mark.parametrize("unit_length", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)]
)
def test_value_and_gradient_are_those_of_equations_6_and_14(
    unit_length, reduction, dtype, tolerance
):
    student, teacher = states(dtype=dtype)
    total, count = representation_loss(
        student, teacher, MASK, SquaredDistance(unit_length), reduction=reduction
    )
    (gradient,) = torch.autograd.grad(total, student)
    expected, expected_count = reference.representation_loss(
        student, teacher, MASK, unit_length, reduction
    )
    (expected_gradient,) = torch.autograd.grad(expected, student)
    assert total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert gradient.dtype == dtype
    assert count == expected_count
    # The value is computed in float32 whatever the states' dtype.
    torch.testing.assert_close(total.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, expected_gradient, rtol=tolerance, atol=tolerance * 1e-2)


@pytest.mark.parametrize("unit_length", [False, True])
def test_weighed_by_divergence_it_is_the_definition_s_in_value_and_gradient(unit_length):
    student, teacher = states(dtype=torch.float64)
    total, count = representation_loss(
        student, teacher, MASK, SquaredDistance(unit_length), by_divergence=True
    )
    (gradient,) = torch.autograd.grad(total, student)
    expected, expected_count = reference.divergence_weighted_loss(
        student, teacher, MASK, unit_length
    )
    (expected_gradient,) = torch.autograd.grad(expected, student)
    assert count == expected_count
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=0)
    shares = torch.tensor([0.5, 1, 2, 0])
    shared, _ = representation_loss(
        student, teacher, MASK, SquaredDistance(unit_length), by_divergence=True, shares=shares
    )
    one_by_one = [
        reference.divergence_weighted_loss(
            *(s[b : b + 1] for s in (student, teacher, MASK)), unit_length
        )[0]
        for b in range(len(MASK))
    ]
    torch.testing.assert_close(shared, sum(s * t for s, t in zip(shares, one_by_one, strict=True)))
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("unit_length", [False, True])
def test_no_gradient_reaches_the_teacher(unit_length):
    student, teacher = states()
    representation_loss(student, teacher, MASK, SquaredDistance(unit_length)).total.backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("unit_length", [False, True])
def test_identical_states_have_zero_loss_and_zero_gradient(unit_length):
    student, _ = states()
    total, _ = representation_loss(
        student, student.detach().clone(), MASK, SquaredDistance(unit_length)
    )
    (gradient,) = torch.autograd.grad(total, student)
    assert total == 0
    assert not gradient.any()


@pytest.mark.parametrize("reduction", ["sequence", "token"])
@pytest.mark.parametrize("unit_length", [False, True])
def test_an_empty_mask_gives_a_finite_zero_with_a_graph(unit_length, reduction):
    student, teacher = states()
    total, count = representation_loss(
        student, teacher, torch.zeros_like(MASK), SquaredDistance(unit_length), reduction=reduction
    )
    total.backward()
    assert total == 0
    assert count == 0
    assert not student.grad.any()


@pytest.mark.parametrize("unit_length", [False, True])
def test_a_nan_outside_the_mask_is_never_read(unit_length):
    student, teacher = states()
    expected = representation_loss(student, teacher, MASK, SquaredDistance(unit_length))
    (expected_gradient,) = torch.autograd.grad(expected.total, student)
    holes = ~MASK[..., None]
    poisoned = student.detach().masked_fill(holes, torch.nan).requires_grad_()
    total, _ = representation_loss(
        poisoned, teacher.masked_fill(holes, torch.nan), MASK, SquaredDistance(unit_length)
    )
    (gradient,) = torch.autograd.grad(total, poisoned)
    assert total == expected.total
    assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("unit_length", [False, True])
def test_a_nan_inside_the_mask_reaches_the_total(unit_length):
    student, teacher = states()
    broken = teacher.detach().clone()
    broken[0, 0, 0] = torch.nan
    assert representation_loss(student, broken, MASK, SquaredDistance(unit_length)).total.isnan()


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_a_zero_state_at_unit_length_gives_a_finite_loss_and_gradient(side):
    student, teacher = (s.detach().clone() for s in states())
    (student if side == "student" else teacher)[0, 0] = 0
    student.requires_grad_()
    total, _ = representation_loss(student, teacher, MASK, SquaredDistance(True))
    total.backward()
    assert total.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("unit_length", [False, True])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("size", [0.0, 1e-14, 1e-12])
def test_a_row_without_direction_has_a_cosine_of_zero_with_any_other(unit_length, side, size):
    rows = [torch.ones(2, 1), torch.ones(2, 1)]
    rows[side][0] = size
    assert row_distances(*rows, unit_length).cosine.tolist() == [0, 1]
    rows[side][0] = torch.nan
    assert row_distances(*rows, unit_length).cosine[0].isnan()


@pytest.mark.parametrize("unit_length", [False, True])
def test_analytic_gradients_agree_with_finite_differences(unit_length):
    student, teacher = (s.detach().flatten(0, 1) for s in states(dtype=torch.float64))
    student.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda rows: row_distances(rows, teacher, unit_length).distance, (student,)
    )


def test_totals_and_counts_of_any_split_add_up_to_the_whole():
    student, teacher = states()
    whole = representation_loss(student, teacher, MASK)
    parts = [
        representation_loss(student[rows], teacher[rows], MASK[rows])
        for rows in (slice(0, 1), slice(1, 2), slice(2, 4))
    ]
    torch.testing.assert_close(sum(p.total for p in parts), whole.total, rtol=1e-6, atol=0)
    assert sum(p.count for p in parts) == whole.count


@pytest.mark.parametrize("unit_length", [False, True])
def test_row_cosines_and_norms_are_those_of_torch(unit_length):
    student, teacher = (s.detach().flatten(0, 1) for s in states())
    rows = row_distances(student, teacher, unit_length)
    torch.testing.assert_close(rows.cosine, torch.cosine_similarity(student, teacher, dim=-1))
    torch.testing.assert_close(rows.student_norm, student.norm(dim=-1))
    torch.testing.assert_close(rows.teacher_norm, teacher.norm(dim=-1))


def test_unequal_shapes_are_refused_with_both():
    student, teacher = states()
    with pytest.raises(ValueError, match=r"\(9, 7\) and teacher rows \(9, 6\)"):
        representation_loss(student, teacher[..., :6], MASK)
    with pytest.raises(ValueError, match="need a bridge"):
        row_distances(student[0], teacher[0, :, :6])
    with pytest.raises(ValueError, match="reduction"):
        representation_loss(student, teacher, MASK, reduction="mean")
