import torch

from oprd.stopwatch import Stopwatch, peak_memory_gib


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
