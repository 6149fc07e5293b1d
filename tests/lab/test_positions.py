import pytest
import torch

from lab.items.positions import cosine_curves, table
from lab.readings import read_states
from tests.lab.theory import models, rollouts


def test_cosines_are_means_over_the_first_and_the_last_k_tokens_of_each_response():
    pair = models()
    batch = rollouts(pair)
    found = cosine_curves(pair, batch)
    student, teacher = read_states(pair.student, batch), read_states(pair.teacher, batch)
    lengths = batch.response.sum(dim=1).tolist()
    last = max(student)
    by_layer = {n: torch.cosine_similarity(student[n], teacher[n], dim=1) for n in student}
    for k in found["k"]:
        parts = by_layer[last].split(lengths)
        first = torch.cat([part[:k] for part in parts]).mean()
        end = torch.cat([part[-k:] for part in parts]).mean()
        assert found["first_k"]["last"][k - 1] == pytest.approx(float(first), abs=1e-5)
        assert found["last_k"]["last"][k - 1] == pytest.approx(float(end), abs=1e-5)
    everything = torch.stack(list(by_layer.values())).mean()
    assert found["first_k"]["mean"][-1] == pytest.approx(float(everything), abs=1e-5)
    assert found["first_k"]["mean"][-1] == pytest.approx(found["last_k"]["mean"][-1])


def test_the_table_shows_a_quarter_at_either_end():
    def values(begin):
        return [(begin + index) / 100 for index in range(8)]

    first = {"last": values(10), "mean": values(20)}
    last = {"last": values(30), "mean": values(40)}
    lines = table({"one": {"k": list(range(1, 9)), "first_k": first, "last_k": last}})
    assert lines[-1] == "| one | 2 | 11.0% | 31.0% | 37.0% | 21.0% | 41.0% | 47.0% |"
