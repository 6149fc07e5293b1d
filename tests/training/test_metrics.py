import pytest
import torch

from oprd.core.layers import LayerPair
from oprd.core.reduction import LossSum
from oprd.core.representation import LayersLoss
from oprd.training.metrics import StepStatistics, Stopwatch, peak_memory_gib

PAIRS = (LayerPair(1, 2), LayerPair(3, 5))


def result(cosine, student_norm=(1.0, 1.0), teacher_norm=(1.0, 1.0)):
    zero = torch.zeros(())
    values = (torch.tensor(v) for v in (cosine, student_norm, teacher_norm))
    return LayersLoss(LossSum(zero, zero), *values)


def test_cosines_are_means_over_the_positions_of_all_micro_batches():
    statistics = StepStatistics(PAIRS)
    statistics.add(result((3.0, 1.0)), torch.tensor(4))
    statistics.add(result((1.0, 0.0)), torch.tensor(1))
    metrics = statistics.metrics(statistics.take())
    assert metrics["supervised_tokens"] == 5
    assert metrics["rep_cosine/layer_01"] == pytest.approx(0.8)
    assert metrics["rep_cosine/layer_03"] == pytest.approx(0.2)
    assert metrics["rep_cosine"] == pytest.approx(0.5)
    assert statistics.take() is None


def test_no_cosine_is_reported_where_nothing_was_supervised():
    statistics = StepStatistics(PAIRS)
    statistics.add(result((0.0, 0.0)), torch.tensor(0))
    assert statistics.metrics(statistics.take()) == {"supervised_tokens": 0}


def test_broken_states_are_named_by_model_and_layer():
    statistics = StepStatistics(PAIRS)
    statistics.add(result((1.0, 1.0)), torch.tensor(2))
    statistics.add(
        result((1.0, 1.0), student_norm=(1.0, float("inf")), teacher_norm=(float("nan"), 1.0)),
        torch.tensor(2),
    )
    assert statistics.broken(statistics.take()) == ["student layer 3", "teacher layer 2"]


def test_a_stopwatch_adds_up_the_spans_of_a_phase():
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        with watch("outer"), watch("inner"):
            torch.ones(1000).sum()
    seconds = watch.take()
    assert seconds["outer"] >= seconds["inner"] > 0
    assert watch.take() == {}


def test_peak_memory_is_of_a_plausible_size():
    assert 0.05 < peak_memory_gib(torch.device("cpu")) < 1000
