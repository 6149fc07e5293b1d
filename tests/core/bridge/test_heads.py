"""A bridge read off both LM heads is the distance of the logits, up to what it cannot change."""

import dataclasses

import pytest
import torch

from oprd.core.bridge import Bridge, BridgeFitter
from oprd.core.bridge.bases import CHOICES, by_pair, check_last, joined
from oprd.core.bridge.heads import METRICS, HeadPair, HeadStatistics, solve_heads
from oprd.core.layers import LayerPair
from oprd.core.output.head import LMHead
from oprd.core.states.distance import SquaredDistance
from oprd.core.states.loss import Sequences
from tests.reference import heads as naive

S, H, N = 6, 9, 40
SUMMED = SquaredDistance(summed=True)


def noise(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


def head(vocab_size, width, seed, **options):
    if options.pop("bias", False):
        options["bias"] = noise(vocab_size, seed=seed + 100)
    return LMHead(noise(vocab_size, width, seed=seed, scale=0.5), **options)


VARIATIONS = {
    "plain": ((20, {}), (20, {})),
    "biases": ((20, {"bias": True}), (20, {"bias": True})),
    "the student's bias alone": ((20, {"bias": True}), (20, {})),
    "scales": ((20, {"scale": 0.25, "bias": True}), (20, {"scale": 3.0, "bias": True})),
    "a longer student": ((31, {"bias": True}), (20, {})),
    "a longer teacher": ((20, {}), (33, {"bias": True})),
    "a softcap": ((20, {"softcap": 2.0}), (20, {"softcap": 5.0})),
    "fewer tokens than dimensions": ((5, {"bias": True}), (5, {})),
    "a wider student": ((20, {}), (20, {"width": 3})),
}


def variation(name):
    (v_s, of_s), (v_t, of_t) = VARIATIONS[name]
    of_t = dict(of_t)
    width = of_t.pop("width", H)
    return head(v_s, S, 1, **of_s), head(v_t, width, 2, **of_t)


def rows_of(teacher_width=H, n=N, seed=3):
    return noise(n, S, seed=seed) + 1, noise(n, teacher_width, seed=seed + 1) - 0.5


def statistics_of(student, teacher, metric, rows, **options):
    found = HeadStatistics(HeadPair(student, teacher), metric, **options)
    for part in rows.split(7):
        found.update(part)
    return found


def fitted(student, teacher, metric, h_s, h_t, **options):
    statistics = HeadStatistics(HeadPair(student, teacher), metric)
    fitter = BridgeFitter([(4, 5)], h_s.shape[1], h_t.shape[1], heads=statistics)
    fitter.update({4: h_s}, {5: h_t})
    return fitter.solve(1, basis="heads", **options)


def distances(bridge, h_s, h_t):
    return (bridge.project_student(4, h_s) - bridge.project_teacher(4, h_t)).square().sum(dim=1)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", VARIATIONS)
def test_value_and_gradient_are_those_of_all_logits_up_to_what_the_student_cannot_reach(
    name, metric
):
    student, teacher = variation(name)
    calibration_s, calibration = rows_of(teacher.width)
    bridge = fitted(student, teacher, metric, calibration_s, calibration)
    size = min(student.vocab_size, teacher.vocab_size)
    matrix = naive.metric_matrix(metric, naive.distributions(teacher, calibration, size))
    h_s, h_t = rows_of(teacher.width, n=11, seed=50)
    ours, theirs = h_s.clone().requires_grad_(), h_s.clone().requires_grad_()

    expected = naive.squared_distances(student, teacher, theirs, h_t, matrix)
    through = SUMMED(
        bridge.project_student(4, ours),
        bridge.project_teacher(4, h_t),
        Sequences(torch.ones(1, 11)),
    ).distance
    expected.sum().backward()
    through.sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    assert (ours.grad - theirs.grad).norm() < 1e-6 * theirs.grad.norm()

    statistics = statistics_of(student, teacher, metric, calibration)
    form = solve_heads(statistics.moments(unreachable=True)).unreachable
    assert form is not None
    u = torch.cat([h_t, -torch.ones(11, 1).double()], dim=1)
    c = torch.einsum("ni,ij,nj->n", u, form, u)
    torch.testing.assert_close(through + c, expected, rtol=1e-6, atol=1e-9)
    assert (c > -1e-9).all()


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_reported_as_out_of_reach_is_the_least_distance_of_any_student_state(metric):
    student, teacher = variation("biases")
    h_s, h_t = rows_of()
    bridge = fitted(student, teacher, metric, h_s, h_t)
    matrix = naive.metric_matrix(metric, naive.distributions(teacher, h_t, 20))
    root = torch.linalg.cholesky(matrix + 1e-12 * torch.eye(20).double()).T
    target = naive.logits(teacher, h_t, 20) - student.bias
    best = torch.linalg.lstsq(root @ student.weight, root @ target.T).solution.T
    least = naive.squared_distances(student, teacher, best, h_t, matrix)
    reported = bridge.statistics[4].unreachable
    assert reported == pytest.approx(float(least.mean()), rel=1e-6)


@pytest.mark.parametrize("metric", ["prior", "fisher"])
def test_in_nats_it_is_the_divergence_of_models_that_are_near(metric):
    teacher = head(20, H, 2)
    h_t = rows_of(n=1)[1] if metric == "prior" else rows_of()[1]
    bridge = fitted(teacher, teacher, metric, h_t, h_t)
    near = h_t + noise(*h_t.shape, seed=9, scale=1e-4)
    distance = distances(bridge, near, h_t)
    q = naive.distributions(teacher, h_t, 20)
    log_p = naive.logits(teacher, near, 20).log_softmax(dim=1)
    kl = (q * (q.log() - log_p)).sum(dim=1)
    if metric == "prior":
        torch.testing.assert_close(distance, kl, rtol=1e-3, atol=0)
    else:
        # The metric is an average over rows.
        assert 0.3 < float(distance.mean() / kl.mean()) < 3


def test_a_shift_that_all_logits_share_changes_nothing():
    student, teacher = variation("plain")
    shifted = LMHead(teacher.weight + noise(1, H, seed=8), bias=torch.full((20,), 3.0).double())
    h_s, h_t = rows_of()
    for metric in ("centered", "prior"):
        bridges = [fitted(student, of, metric, h_s, h_t) for of in (teacher, shifted)]
        torch.testing.assert_close(*(distances(bridge, h_s, h_t) for bridge in bridges))


def test_fewer_directions_are_those_in_which_the_students_states_differ_most():
    student, teacher = variation("plain")
    h_s, h_t = rows_of()
    h_s[:, 3:] *= 1e-3
    whole = fitted(student, teacher, "fisher", h_s, h_t)
    cut = fitted(student, teacher, "fisher", h_s, h_t, heads_rank=3)
    assert (whole.ranks, cut.ranks) == ((S,), (3,))
    assert torch.equal(cut.student_projections[0], whole.student_projections[0][:3])
    spread = whole.project_student(4, h_s).square().mean(0)
    assert spread[:3].sum() > 0.99 * spread.sum()
    moment = torch.einsum("nr,nq->rq", *[whole.project_student(4, h_s)] * 2) / N
    torch.testing.assert_close(moment, moment.diagonal().diag(), atol=1e-9, rtol=0)
    with pytest.raises(ValueError, match="heads_rank 7 is not within 1 to 6, the directions that"):
        fitted(student, teacher, "fisher", h_s, h_t, heads_rank=7)


def test_the_split_of_the_rows_and_the_chunks_of_the_heads_do_not_matter(monkeypatch):
    student, teacher = variation("biases")
    rows = rows_of()[1]
    whole = statistics_of(student, teacher, "fisher", rows).moments(unreachable=True)
    monkeypatch.setattr("oprd.core.output.head.CHUNK_ELEMENTS", 64)
    pair = HeadPair(student, teacher)
    assert len(list(pair.tiles(torch.device("cpu")))) > 3
    parts = HeadStatistics(pair, "fisher")
    for part in rows.split(3):
        parts.update(part)
    for one, other in zip(whole, parts.moments(unreachable=True), strict=True):
        torch.testing.assert_close(one, other)


def test_both_heads_are_gone_through_once_for_rows_that_come_few_at_a_time(monkeypatch):
    gone_through = []
    through = HeadStatistics._through_heads
    monkeypatch.setattr(
        HeadStatistics,
        "_through_heads",
        lambda self, q: gone_through.append(len(q)) or through(self, q),
    )
    statistics = HeadStatistics(HeadPair(*variation("plain")), "fisher")
    rows = rows_of()[1]
    for part in rows.split(3):
        statistics.update(part)
    assert gone_through == [] and statistics.count == len(rows)
    statistics.moments()
    assert gone_through == [len(rows)]


def test_one_row_of_so_many_is_read_whatever_the_batches():
    student, teacher = variation("plain")
    rows = rows_of()[1]
    every = statistics_of(student, teacher, "fisher", rows, every=3)
    chosen = statistics_of(student, teacher, "fisher", rows[::3])
    assert every.count == chosen.count == 14
    for one, other in zip(every.moments()[:2], chosen.moments()[:2], strict=True):
        torch.testing.assert_close(one, other)


def test_a_fit_goes_on_from_its_state():
    student, teacher = variation("plain")
    h_s, h_t = rows_of()

    def fitter():
        statistics = HeadStatistics(HeadPair(student, teacher), "fisher", every=2)
        return BridgeFitter([(1, 2), (2, 3)], S, H, heads=statistics)

    begun, resumed, whole = fitter(), fitter(), fitter()
    first, second = slice(0, 11), slice(11, None)
    for one in (begun, whole):
        one.update({1: h_s[first] + 1, 2: h_s[first]}, {2: h_t[first] + 1, 3: h_t[first]})
    resumed.load_state_dict(begun.state_dict())
    for one in (resumed, whole):
        one.update({1: h_s[second] + 1, 2: h_s[second]}, {2: h_t[second] + 1, 3: h_t[second]})
    bridges = [one.solve(2, basis="pca+heads") for one in (resumed, whole)]
    assert torch.equal(bridges[0].student_projection, bridges[1].student_projection)
    assert torch.equal(bridges[0].teacher_projection, bridges[1].teacher_projection)
    with pytest.raises(ValueError, match="of LM heads, which this fit does not read"):
        BridgeFitter([(1, 2), (2, 3)], S, H).load_state_dict(begun.state_dict())


def test_lower_pairs_have_their_own_basis_and_the_last_one_the_heads(tmp_path):
    student, teacher = variation("a wider student")
    h_s, h_t = rows_of(3)
    statistics = HeadStatistics(HeadPair(student, teacher), "fisher")
    fitter = BridgeFitter([(1, 2), (2, 4)], S, 3, heads=statistics)
    fitter.update({1: h_s + 1, 2: h_s}, {2: h_t.flip(1), 4: h_t})
    bridge = fitter.solve(2, basis="rrr+heads")
    lower = BridgeFitter([(1, 2)], S, 3)
    lower.update({1: h_s + 1}, {2: h_t.flip(1)})
    alone = lower.solve(2, basis="rrr")
    assert (bridge.bases, bridge.basis) == (("rrr", "heads"), "rrr+heads")
    # The student's head tells more directions apart than the teacher's states have.
    assert (bridge.ranks, bridge.rank, bridge.heads_layer) == ((2, S), 2, 2)
    assert torch.equal(bridge.project_student(1, h_s), alone.project_student(1, h_s))
    assert bridge.teacher_mean[0].any() and not bridge.teacher_mean[1].any()
    assert not bridge.student_mean[1].any()
    path = tmp_path / "bridge.safetensors"
    bridge.save(path)
    with pytest.warns(UserWarning, match="does not say which models"):
        loaded = Bridge.load(path)
    for name in ("ranks", "bases", "heads_metric", "heads_layer"):
        assert getattr(loaded, name) == getattr(bridge, name)
    assert torch.equal(loaded.project_teacher(2, h_t), bridge.project_teacher(2, h_t))
    assert loaded.statistics[2].unreachable == bridge.statistics[2].unreachable
    assert loaded.statistics[1].unreachable is None


def test_the_centred_metric_needs_no_rows_and_the_others_say_what_they_lack():
    student, teacher = variation("plain")
    h_s, h_t = rows_of()
    bridges = []
    for rows in (0, N):
        statistics = HeadStatistics(HeadPair(student, teacher), "centered")
        fitter = BridgeFitter([(4, 5)], S, H, heads=statistics)
        fitter.update({4: h_s[:rows]}, {5: h_t[:rows]})
        bridges.append(fitter.solve(1, basis="heads"))
    torch.testing.assert_close(*(distances(bridge, h_s, h_t) for bridge in bridges))
    for metric in ("prior", "fisher"):
        with pytest.raises(ValueError, match="calibration rows, and there are none: add prompts"):
            HeadStatistics(HeadPair(student, teacher), metric).moments()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heads_and_rows_of_less_precision_are_summed_in_float64(dtype):
    student, teacher = variation("plain")
    low = [LMHead(head.weight.to(dtype)) for head in (student, teacher)]
    exact = [LMHead(head.weight.double()) for head in low]
    h_t = rows_of()[1].to(dtype)
    found = statistics_of(*low, "fisher", h_t).moments()
    expected = statistics_of(*exact, "fisher", h_t.double()).moments()
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(found.student, expected.student, rtol=tolerance, atol=1e-6)


def test_no_gradient_reaches_a_head():
    student, teacher = variation("plain")
    student.weight.requires_grad_()
    pair = HeadPair(student, teacher)
    assert not pair.student.weight.requires_grad


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s, t: HeadStatistics(HeadPair(s, t), "other"), "heads_metric must be one of"),  # type: ignore[arg-type]
        (lambda s, t: HeadStatistics(HeadPair(s, t), every=0), "every must be at least 1, got 0"),
        (lambda s, t: HeadPair(s, t.cut(0)), "shared tokens: there are none"),
        (
            lambda s, t: solve_heads(
                HeadStatistics(HeadPair(LMHead(torch.ones(20, S)), t), "centered").moments()
            ),
            "gives all tokens the same logit",
        ),
        (
            lambda s, t: HeadStatistics(
                HeadPair(s, dataclasses.replace(t, bias=torch.full((t.vocab_size,), -torch.inf)))
            ).moments(),
            "weights or biases that are not finite give no bridge",
        ),
        (lambda s, t: BridgeFitter([(1, 1)], S, H).solve(1, basis="heads"), "needs both LM heads"),
        (
            lambda s, t: by_pair("heads", [LayerPair(1, 1), LayerPair(2, 3)]),
            r"student layers \[1\] lie below: set layers='last', or a basis for them",
        ),
        (lambda s, t: by_pair("heads+pca", [LayerPair(1, 1)]), "basis must be one of pca, rrr"),
        (lambda s, t: check_last(LayerPair(3, 4), (4, 4)), "4 with 4, .* pair here is 3 with 4"),
    ],
)
def test_what_cannot_be_read_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(*variation("plain"))


@pytest.mark.parametrize("basis", CHOICES)
def test_a_basis_is_told_from_those_of_its_pairs(basis):
    pairs = [LayerPair(2, 3), LayerPair(1, 3)]
    pairs = pairs[:1] if basis == "heads" else pairs
    assert joined(by_pair(basis, pairs)) == basis
