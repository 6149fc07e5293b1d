"""Fitting: equal to a direct float64 solve, however the rows arrive."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oprd.core.bridge import BridgeFitter
from oprd.core.bridge.ridge import choose_ridge, validation_r_squared
from oprd.core.bridge.score import score_rows
from oprd.core.bridge.statistics import NonFiniteRowError
from oprd.core.layers import LayerPair
from tests.reference import bridge as reference

PAIRS = (LayerPair(1, 1), LayerPair(2, 3), LayerPair(4, 3))
S, H = 7, 9


def paired_rows(n=200, seed=0, mean=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    student, teacher = {}, {}
    for layer in (1, 2, 4):
        spread = torch.linspace(0.5, 2, S)
        student[layer] = (noise(n, S) * spread + mean * noise(S)).to(dtype)
    for layer in (1, 3):
        image = student[layer if layer == 1 else 2].double() @ noise(S, H) / S**0.5
        spread = torch.linspace(2, 0.1, H)
        teacher[layer] = (image + noise(n, H) * spread + mean * noise(H)).to(dtype)
    return student, teacher


def fitted(student, teacher, **options):
    fitter = BridgeFitter(PAIRS, S, H, **options)
    fitter.update(student, teacher)
    return fitter


def relative_error(value, expected):
    return float((value.double() - expected).norm() / expected.norm())


def assert_same_sums(fitter, expected, tolerance=1e-12):
    left, right = fitter.state_dict(), expected.state_dict()
    assert left.keys() == right.keys()
    for name in left:
        assert relative_error(left[name], right[name].double()) <= tolerance, name


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("mean", [0.0, 1.0, 1000.0])
def test_equals_a_direct_float64_solve_on_all_rows(mean, dtype, center):
    if mean == 1000 and dtype in (torch.bfloat16, torch.float16):
        mean = 100.0  # at 1000 these dtypes round the rows themselves to a few constants
    student, teacher = paired_rows(mean=mean, dtype=dtype)
    bridge = fitted(student, teacher).solve(4, center=center)
    for pair in PAIRS:
        h_s, h_t = student[pair.student], teacher[pair.teacher]
        s, t = reference.fit_pair(h_s, h_t, 4, center=center)
        assert relative_error(bridge.project_student(pair.student, h_s.double()), s) < 1e-6
        assert relative_error(bridge.project_teacher(pair.student, h_t.double()), t) < 1e-6
        _, eigenvalues = reference.principal_rows(h_t)
        fit = bridge.statistics[pair.student]
        assert relative_error(fit.eigenvalues, eigenvalues) < 1e-9
        assert relative_error(fit.r_squared[:4], reference.r_squared(s, t)) < 1e-6


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 1e-3, 10.0])
def test_any_ridge_equals_the_direct_solve(ridge, center):
    student, teacher = paired_rows()
    bridge = fitted(student, teacher).solve(H - 2, center=center, ridge=ridge)
    s, _ = reference.fit_pair(student[2], teacher[3], H - 2, center=center, ridge=ridge)
    assert relative_error(bridge.project_student(2, student[2].double()), s) < 1e-9


def test_uncentred_solve_leaves_the_students_mean_in():
    student, teacher = paired_rows()
    bridge = fitted(student, teacher).solve(2, center=False)
    assert not bridge.student_mean.any()
    zero = torch.zeros(1, S)
    assert not bridge.project_student(1, zero).any()


def test_float32_products_stay_within_1e_6_of_the_moments():
    student, teacher = paired_rows(mean=1000.0, n=5000)
    exact = fitted(student, teacher)
    assert_same_sums(fitted(student, teacher, products=torch.float32), exact, tolerance=1e-6)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=6), seed=st.integers(0, 1000))
def test_any_split_and_order_gives_the_same_sums(cuts, seed):
    student, teacher = paired_rows(n=60, mean=1000.0)
    whole = fitted(student, teacher)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
    split = BridgeFitter(PAIRS, S, H)
    bounds = [0, *sorted(cuts), 60]
    for start, stop in pairwise(bounds):
        index = order[start:stop]
        split.update(
            {layer: rows[index] for layer, rows in student.items()},
            {layer: rows[index] for layer, rows in teacher.items()},
        )
    assert split.rows == 60
    # Against the spread of the rows, a thousandth of their mean: 1e-12 of the scatters is 1e-18
    # of the uncentred second moment, beyond what plain float64 sums could hold.
    assert_same_sums(split, whole)


def test_blocks_within_an_update_do_not_matter(monkeypatch):
    student, teacher = paired_rows()
    whole = fitted(student, teacher)
    monkeypatch.setattr("oprd.core.bridge.statistics.BLOCK_ROWS", 17)
    assert_same_sums(fitted(student, teacher), whole)


def test_a_fit_is_deterministic_to_the_bit():
    bridges = [fitted(*paired_rows()).solve(3) for _ in range(2)]
    assert torch.equal(bridges[0].student_projection, bridges[1].student_projection)
    assert torch.equal(bridges[0].teacher_projection, bridges[1].teacher_projection)


def test_the_largest_entry_of_each_direction_is_positive():
    bridge = fitted(*paired_rows()).solve(3)
    rows = bridge.teacher_projection
    assert torch.equal(reference.signed(rows), rows)


def test_ranks_are_nested_and_share_one_factorisation(monkeypatch):
    fitter = fitted(*paired_rows())
    full = fitter.solve(S)
    monkeypatch.setattr(torch.linalg, "eigh", None)
    monkeypatch.setattr(torch.linalg, "cholesky_ex", None)
    for rank in range(1, S + 1):
        bridge = fitter.solve(rank)
        for name in ("student_projections", "teacher_projections"):
            pairs = zip(getattr(bridge, name), getattr(full, name), strict=True)
            assert all(torch.equal(cut, whole[:rank]) for cut, whole in pairs)


def test_another_ridge_needs_no_eigendecomposition(monkeypatch):
    fitter = fitted(*paired_rows())
    fitter.solve(3)
    expected = fitted(*paired_rows()).solve(3, ridge=0.1, center=False)
    monkeypatch.setattr(torch.linalg, "eigh", None)
    other = fitter.solve(3, ridge=0.1, center=False)
    assert torch.equal(other.student_projection, expected.student_projection)


def test_new_rows_are_part_of_the_next_solve():
    student, teacher = paired_rows()
    more = paired_rows(seed=1)
    fitter = fitted(student, teacher)
    fitter.solve(3)
    fitter.update(*more)
    both = [
        {layer: torch.cat([a[layer], b[layer]]) for layer in a}
        for a, b in zip((student, teacher), more, strict=True)
    ]
    expected = fitted(*both).solve(3)
    torch.testing.assert_close(fitter.solve(3).student_projection, expected.student_projection)


def test_a_shared_teacher_layer_is_multiplied_once(monkeypatch):
    fitter = BridgeFitter(PAIRS, S, H)
    squares = []
    add_product = type(fitter.sums)._add_product

    def counted(self, total, left, right):
        squares.append(total.shape)
        add_product(self, total, left, right)

    monkeypatch.setattr(type(fitter.sums), "_add_product", counted)
    fitter.update(*paired_rows())
    assert squares.count((H, H)) == 2
    assert squares.count((S, S)) == squares.count((S, H)) == 3


def test_memory_does_not_grow_with_rows():
    fitter = fitted(*paired_rows())
    before = {name: tensor.shape for name, tensor in fitter.state_dict().items()}
    for seed in range(5):
        fitter.update(*paired_rows(seed=seed))
    assert {name: tensor.shape for name, tensor in fitter.state_dict().items()} == before


def test_an_update_keeps_no_graph_and_no_rows():
    student, teacher = paired_rows()
    student[1].requires_grad_()
    fitter = fitted(student, teacher)
    assert not any(tensor.requires_grad for tensor in fitter.state_dict().values())
    before = fitter.solve(2).student_projection
    teacher[1].zero_()
    fitter._forget_solutions()
    assert torch.equal(fitter.solve(2).student_projection, before)


def test_no_rows_add_nothing():
    student, teacher = paired_rows()
    fitter = fitted(student, teacher)
    before = fitter.state_dict()
    fitter.update(
        {layer: rows[:0] for layer, rows in student.items()},
        {layer: rows[:0] for layer, rows in teacher.items()},
    )
    after = fitter.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_resumed_fit_continues_to_the_bit():
    first, second = paired_rows(), paired_rows(seed=1)
    whole = fitted(*first)
    state = whole.state_dict()
    whole.update(*second)
    resumed = BridgeFitter([tuple(pair) for pair in PAIRS], S, H)
    resumed.load_state_dict(state)
    assert resumed.rows == 200
    resumed.update(*second)
    left, right = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in right)


def test_a_resumed_fit_keeps_its_gradients():
    student, teacher = paired_rows()
    fitter = BridgeFitter(PAIRS, S, H)
    fitter.update(student, teacher, teacher_gradients=teacher)
    resumed = BridgeFitter(PAIRS, S, H)
    resumed.load_state_dict(fitter.state_dict())
    left, right = (f.solve(3, basis="fisher").student_projection for f in (fitter, resumed))
    assert torch.equal(left, right)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("cross"), "the state of a fit holds"),
        (lambda state: state.update(extra=torch.zeros(1)), "the state of a fit holds"),
        (lambda state: state.update(cross=torch.zeros(3, S, H)), "cross of the fit's state is"),
        (lambda state: state["cross"].fill_(torch.nan), "cross .* holds a NaN"),
        (lambda state: state["pairs"].add_(1), "the fit's state is of layer pairs"),
    ],
)
def test_the_state_of_another_fit_is_refused(change, message):
    fitter = fitted(*paired_rows())
    state = fitter.state_dict()
    change(state)
    with pytest.raises(ValueError, match=message):
        fitter.load_state_dict(state)
    assert fitter.rows == 200


@pytest.mark.parametrize("source", ["student", "teacher", "teacher gradient"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_row_that_is_not_finite_is_named_and_nothing_is_added(source, value):
    student, teacher = paired_rows()
    fitter = fitted(student, teacher)
    before = fitter.state_dict()
    gradients = {layer: rows.clone() for layer, rows in teacher.items()}
    rows, layer = {
        "student": (student, 4),
        "teacher": (teacher, 3),
        "teacher gradient": (gradients, 3),
    }[source]
    rows[layer][42, 5] = value
    with pytest.raises(NonFiniteRowError, match=f"{source} row 42 of layer {layer}") as caught:
        fitter.update(student, teacher, teacher_gradients=gradients)
    assert (caught.value.source, caught.value.layer, caught.value.row) == (source, layer, 42)
    after = fitter.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def without(rows, layer):
    return {number: value for number, value in rows.items() if number != layer}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, t: (without(s, 2), t), r"student rows of layers \[2\] are missing"),
        (lambda s, t: (s, without(t, 3)), r"teacher rows of layers \[3\] are missing"),
        (
            lambda s, t: (s | {2: s[2][:, :-1]}, t),
            r"floating \[N, 7\], got torch.float32 \(200, 6\)",
        ),
        (lambda s, t: (s | {2: s[2][None]}, t), r"student rows of layer 2 must be floating"),
        (lambda s, t: (s | {2: s[2].long()}, t), "got torch.int64"),
        (lambda s, t: (s | {2: s[2][:-1]}, t), "student layer 2 has 199 rows, layer 1 has 200"),
        (lambda s, t: (s, {u: rows[:-1] for u, rows in t.items()}), "200 student rows meet 199"),
    ],
)
def test_rows_that_do_not_fit_are_refused(change, message):
    fitter = BridgeFitter(PAIRS, S, H)
    with pytest.raises(ValueError, match=message):
        fitter.update(*change(*paired_rows()))
    assert fitter.rows == 0


def test_gradients_of_other_rows_are_refused():
    student, teacher = paired_rows()
    gradients = {layer: rows[:-1] for layer, rows in teacher.items()}
    with pytest.raises(ValueError, match="200 rows meet 199 teacher gradient rows"):
        BridgeFitter(PAIRS, S, H).update(student, teacher, teacher_gradients=gradients)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], S, H), "no layer pair"),
        (([(1, 1), (1, 2)], S, H), r"student layers \[1\] repeat"),
        (([(1, 1), (1, 1)], S, H), r"student layers \[1\] repeat"),
        (([(0, 1)], S, H), "both from 1"),
        (([(1, True)], S, H), "both from 1"),
        (([(1, 2, 3)], S, H), "both from 1"),
        ((PAIRS, 0, H), "student_dim must be an integer of at least 1, got 0"),
        ((PAIRS, S, 2.0), "teacher_dim must be an integer of at least 1, got 2.0"),
    ],
)
def test_a_fit_that_cannot_be_is_refused_at_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        BridgeFitter(*arguments)


def test_products_in_half_precision_are_refused():
    with pytest.raises(ValueError, match="products must be"):
        BridgeFitter(PAIRS, S, H, products=torch.bfloat16)


@pytest.mark.parametrize(
    ("rank", "options", "message"),
    [
        (0, {}, "rank must be an integer of at least 1, got 0"),
        (-1, {}, "got -1"),
        (True, {}, "got True"),
        (2.0, {}, "got 2.0"),
        (S + 1, {}, "rank 8 is above a width: the student has 7, the teacher 9"),
        (10**9, {}, "above a width"),
        (2, {"basis": "cca"}, "basis must be one of"),
        (2, {"basis": "fisher"}, "needs update"),
        (2, {"ridge": -1.0}, "ridge must be 0 or more and finite, got -1.0"),
        (2, {"ridge": {1: 0.1}}, r"ridge must name student layers \[1, 2, 4\], got \[1\]"),
        (2, {"ridge": float("nan")}, "ridge must be"),
        (2, {"provenance": {"student": object()}}, "provenance must be a mapping"),
    ],
)
def test_a_solve_that_cannot_be_is_refused(rank, options, message):
    with pytest.raises(ValueError, match=message):
        fitted(*paired_rows()).solve(rank, **options)


@pytest.mark.parametrize("rows", [0, 1])
def test_a_solve_without_rows_is_refused(rows):
    student, teacher = paired_rows(n=rows)
    with pytest.raises(ValueError, match=f"a fit needs rows, got {rows}"):
        fitted(student, teacher).solve(1)


def test_a_rank_above_what_the_rows_support_is_refused():
    fitter = fitted(*paired_rows(n=4))
    assert fitter.solve(3).rank == 3
    with pytest.raises(ValueError, match=r"rank 4 at student layer 1.*4 rows determine 3"):
        fitter.solve(4)


def test_a_teacher_that_varies_in_few_directions_bounds_the_rank():
    student, teacher = paired_rows()
    teacher[3] = teacher[3].clone()
    teacher[3][:, 2:] = 0.1
    fitter = fitted(student, teacher)
    assert fitter.solve(2).rank == 2
    with pytest.raises(ValueError, match=r"student layer 2 and teacher layer 3: .* determine 2"):
        fitter.solve(3)


@pytest.mark.parametrize("source", ["student", "teacher"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_a_layer_that_never_varies_is_refused(source, value):
    student, teacher = paired_rows()
    rows, layer = (student, 4) if source == "student" else (teacher, 3)
    rows[layer] = torch.full_like(rows[layer], value)
    with pytest.raises(ValueError, match=f"{source} layer {layer} is the same vector in all 200"):
        fitted(student, teacher).solve(2)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 1e-300, 1e-6])
def test_constant_features_of_the_student_are_harmless(ridge, center):
    student, teacher = paired_rows()
    student[2] = student[2].clone()
    student[2][:, 3] = 0.1
    bridge = fitted(student, teacher).solve(4, center=center, ridge=ridge)
    s, _ = reference.fit_pair(student[2], teacher[3], 4, center=center, ridge=max(ridge, 1e-15))
    assert relative_error(bridge.project_student(2, student[2].double()), s) < 1e-6


def test_a_ridge_of_its_own_for_each_layer_solves_each_by_itself():
    fitter = fitted(*paired_rows())
    ridges = {1: 0.5, 2: 1e-6, 4: 3.0}
    mixed = fitter.solve(3, ridge=ridges)
    for place, (layer, ridge) in enumerate(ridges.items()):
        alone = fitter.solve(3, ridge=ridge)
        assert torch.equal(mixed.student_projections[place], alone.student_projections[place])
        assert mixed.statistics[layer].ridge == ridge


@pytest.mark.parametrize("center", [True, False])
def test_scores_from_statistics_equal_those_of_the_rows(center):
    bridge = fitted(*paired_rows()).solve(4, center=center, ridge=0.1)
    student, teacher = paired_rows(seed=5)
    by_rows = score_rows(
        bridge,
        {layer: rows.double() for layer, rows in student.items()},
        {layer: rows.double() for layer, rows in teacher.items()},
    )
    by_sums = validation_r_squared(bridge, fitted(student, teacher))
    assert by_sums == pytest.approx({layer: score.r_squared for layer, score in by_rows.items()})


def test_the_ridge_is_chosen_by_rows_that_the_fit_has_not_seen():
    # As many rows as unknowns: without a ridge the noise is fitted.
    student, teacher = paired_rows(n=12, mean=0.0)
    fitter = fitted(student, teacher)
    validation = fitted(*paired_rows(n=300, mean=0.0, seed=0))
    candidates = (1e-6, 0.1, 1.0, 10.0)
    chosen = choose_ridge(fitter, validation, 3, candidates=candidates)
    for layer in (1, 2, 4):
        r_squared = {
            ridge: validation_r_squared(fitter.solve(3, ridge=ridge), validation)[layer]
            for ridge in candidates
        }
        assert r_squared[chosen[layer]] == max(r_squared.values())
    best = validation_r_squared(fitter.solve(3, ridge=chosen), validation)
    plain = validation_r_squared(fitter.solve(3), validation)
    assert all(best[layer] >= plain[layer] for layer in best)


def test_choosing_a_ridge_refuses_other_pairs_and_no_rows():
    fitter = fitted(*paired_rows())
    with pytest.raises(ValueError, match="the same pairs and widths"):
        choose_ridge(fitter, BridgeFitter(PAIRS[:1], S, H), 3)
    with pytest.raises(ValueError, match="no validation rows"):
        choose_ridge(fitter, BridgeFitter(PAIRS, S, H), 3)
    with pytest.raises(ValueError, match="no candidate"):
        choose_ridge(fitter, fitter, 3, candidates=())


def test_held_out_scores_add_up_and_equal_their_definition():
    bridge = fitted(*paired_rows()).solve(4)
    student, teacher = paired_rows(seed=5)
    whole = score_rows(bridge, student, teacher)
    halves = [
        score_rows(
            bridge,
            {layer: rows[part] for layer, rows in student.items()},
            {layer: rows[part] for layer, rows in teacher.items()},
        )
        for part in (slice(0, 70), slice(70, None))
    ]
    for pair in PAIRS:
        s = bridge.project_student(pair.student, student[pair.student].double())
        t = bridge.project_teacher(pair.student, teacher[pair.teacher].double())
        score, parts = whole[pair.student], halves[0][pair.student] + halves[1][pair.student]
        cosine = ((s * t).sum(1) / s.norm(dim=1) / t.norm(dim=1)).mean()
        pooled = 1 - (t - s).square().sum() / t.square().sum()
        for result in (score, parts):
            assert result.rows == 200
            assert result.cosine == pytest.approx(float(cosine), abs=1e-6)
            assert result.r_squared == pytest.approx(float(pooled), abs=1e-5)
            expected = reference.r_squared(s, t)
            torch.testing.assert_close(result.component_r_squared, expected, atol=1e-5, rtol=0)


def test_a_score_holds_those_of_every_lower_rank():
    fitter = fitted(*paired_rows())
    student, teacher = paired_rows(seed=5)
    whole = score_rows(fitter.solve(4), student, teacher)
    for rank in (1, 2, 3, 4):
        lower = score_rows(fitter.solve(rank), student, teacher)
        for layer, score in lower.items():
            assert whole[layer].at(rank).cosine == pytest.approx(score.cosine, abs=1e-6)
            assert whole[layer].at(rank).r_squared == pytest.approx(score.r_squared, abs=1e-6)


def test_the_highest_rank_is_the_last_that_can_be_solved():
    fitter = fitted(*paired_rows())
    assert fitter.highest_rank() == min(S, H)
    few = fitted(*paired_rows(n=4))
    assert few.highest_rank() == 3
    few.solve(3)
    with pytest.raises(ValueError, match="rank 4"):
        few.solve(4)


def test_scores_refuse_rows_that_do_not_meet():
    bridge = fitted(*paired_rows()).solve(4)
    student, teacher = paired_rows()
    with pytest.raises(ValueError, match="200 student rows meet 199"):
        score_rows(bridge, student, {u: rows[:-1] for u, rows in teacher.items()})
