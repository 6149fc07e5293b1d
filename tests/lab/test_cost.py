from dataclasses import asdict

import pytest

from lab import results
from lab.items import cost as module
from lab.items.cost import Case, Cost, table, verdicts
from tests.lab.fakes import TINY_PAIR


def measured(**of_objectives):
    """A measurement of seconds in each round and of bytes, by objective."""
    return {
        "points": [
            {
                "setup": {},
                "objectives": [
                    {
                        "name": name,
                        "label": name.upper(),
                        "family": "representation" if name == "oprd" else "output",
                        "seconds": {"median": rounds[0], "min": min(rounds), "max": max(rounds)},
                        "each_round": rounds,
                        "transient_bytes": transient,
                    }
                    for name, (rounds, transient) in of_objectives.items()
                ],
            }
        ]
    }


@pytest.fixture
def found():
    cost = measured(oprd=([1.0, 2.0, 4.0], 2**20), topk=([3.0, 8.0, 4.0], 4 * 2**20))
    return {"small": {"time": cost, "memory": cost}}


def test_speed_is_compared_within_rounds(found):
    # 3, 4 and 1 times; the ratio of the medians would be 2.
    row = table(found)[-1]
    assert row == "| small | TOPK | 3 (3-8) | 3.00x (2.00-3.50) | 4 | 25% |"
    assert table(found)[-2].endswith("| 1.00x (1.00-1.00) | 1 | 100% |")


def test_the_verdicts_are_about_output_space_objectives(found):
    assert verdicts(found) == {"small: OPRD faster than TOPK": True}
    slower = measured(oprd=([3.0], 1), topk=([2.0], 1))
    assert verdicts({"a": {"time": slower}}) == {"a: OPRD faster than TOPK": False}


@pytest.mark.parametrize("rounds", [[1.2, 0.9, 1.3, 0.8], [1.05] * 4, [0.95] * 4])
def test_rounds_that_disagree_or_differ_little_settle_nothing(rounds):
    near = measured(oprd=([1.0] * 4, 1), topk=(rounds, 1))
    assert verdicts({"a": {"time": near}}) == {}


def test_a_pair_is_measured_from_its_folders_and_named_by_what_its_models_are(
    tiny_pair, tmp_path, monkeypatch
):
    def measure(setups, objectives, **how):
        (setup,) = setups
        assert setup.student == str(tiny_pair.student.path())
        return {"points": [{"setup": asdict(setup)}]}

    monkeypatch.setattr(module, "CACHE", tmp_path)
    monkeypatch.setattr(module, "measure_cost", measure)
    found = Case({"response_length": 8, "window": 2}, pair=TINY_PAIR).measured("a")
    assert found["time"]["points"][0]["setup"]["student"] == tiny_pair.student.key
    assert str(tmp_path) not in str(found)


def test_what_was_measured_is_not_measured_again_and_quick_is_the_first_case(tmp_path, monkeypatch):
    calls = []

    def measure(setups, objectives, *, notify, **how):
        calls.append((setups[0].response_length, how))
        return measured(oprd=([1.0], 1), topk=([2.0], 1))

    monkeypatch.setattr(module, "CACHE", tmp_path)
    monkeypatch.setattr(module, "measure_cost", measure)
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    cases = {
        "a": Case({"response_length": 8, "window": 2}, rounds=3),
        "b": Case({"response_length": 9, "window": 2}, rounds=3),
    }
    item = Cost("cost", "a title", cases)
    item.report(True)
    assert calls == [(8, {"memory": False, "rounds": 3}), (8, {"memory": True, "rounds": 0})]
    item.report(False)
    assert [length for length, _ in calls] == [8, 8, 9, 9]
