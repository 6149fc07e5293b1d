import pytest
import torch

from oprd.core.layers import LayerPair
from oprd.models.metrics import StepStatistics

PAIRS = (LayerPair(1, 2), LayerPair(3, 5))
DEPTHS = (3, 5)


def sums(positions=2.0, cosine=(1.0, 1.0), student=(1.0, 1.0), teacher=(1.0, 1.0), **more):
    named = {
        "positions": positions,
        "supervised": positions,
        "cosine": cosine,
        "student_norm": student,
        "teacher_norm": teacher,
        **more,
    }
    return {name: torch.tensor(value) for name, value in named.items()}


def metrics_of(*micro_batches):
    statistics = StepStatistics({"": (PAIRS, DEPTHS)})
    for micro_batch in micro_batches:
        statistics.add(micro_batch)
    return statistics.metrics(statistics.take())


def test_cosines_are_means_over_the_positions_of_all_micro_batches():
    metrics = metrics_of(sums(4.0, (3.0, 1.0)), sums(1.0, (1.0, 0.0)))
    assert metrics["supervised_tokens"] == 5
    assert metrics["rep_cosine/layer_01"] == pytest.approx(0.8)
    assert metrics["rep_cosine/layer_03"] == pytest.approx(0.2)
    assert metrics["rep_cosine"] == pytest.approx(0.5)


def test_a_step_is_reduced_at_once_and_taken_once():
    statistics = StepStatistics({"": (PAIRS, DEPTHS)})
    statistics.add(sums(4.0, (3.0, 1.0)))
    reduced = []

    def double(flat):
        reduced.append(flat)
        return flat * 2

    taken = statistics.take(double)
    assert len(reduced) == 1
    assert taken["positions"] == 8
    assert taken["cosine"].tolist() == [6.0, 2.0]
    assert statistics.take() == {}


def test_nothing_is_reported_where_nothing_was_supervised():
    nothing = sums(0.0, (0.0, 0.0), **{"diagnostics/x": 0.0, "diagnostics/count": 0.0})
    assert metrics_of(nothing) == {"supervised_tokens": 0}


def test_diagnostics_are_means_over_their_own_count():
    metrics = metrics_of(sums(**{"diagnostics/x": 3.0, "diagnostics/count": 12.0}))
    assert metrics["diagnostics/x"] == 0.25
    assert "diagnostics/count" not in metrics


def test_each_terms_loss_is_reported_where_there_are_several():
    both = {"loss/representation": 0.5, "loss/output": 2.0}
    metrics = metrics_of(sums(**both), sums(**both))
    assert (metrics["loss/representation"], metrics["loss/output"]) == (1.0, 4.0)
    assert not {"loss/output"} & set(metrics_of(sums(**{"loss/output": 2.0})))


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ({"student": (1.0, float("inf"))}, ["student layer 3"]),
        ({"teacher": (float("nan"), 1.0)}, ["teacher layer 2"]),
        ({"last_norm": (1.0, float("nan"))}, ["teacher layer 5"]),
        ({"student": (1.0, float("inf")), "last_norm": (float("inf"), 1.0)}, ["student layer 3"]),
        ({"loss/output": float("inf")}, ["loss/output"]),
    ],
)
def test_what_is_not_finite_is_named(broken, named):
    statistics = StepStatistics({"": (PAIRS, DEPTHS)})
    statistics.add(sums())
    statistics.add(sums(**broken))
    taken = statistics.take()
    assert statistics.broken(taken) == named
