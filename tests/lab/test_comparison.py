import json

import pytest

from lab import runs
from lab.comparison import Comparison, table
from tests.lab.fakes import finish


@pytest.fixture
def comparison(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "CACHE", tmp_path)
    return Comparison("sums", ("OPRD", "top-1"), steps=20, rates=(1e-3, 2e-3), seeds=(0, 1))


def test_the_grid_comes_first_and_then_each_method_at_its_best_rate(comparison):
    assert {run.seed for run in comparison.plan()} == {0}
    finish(comparison.run("OPRD", 1e-3, 0), 0.1, 0.3, 0.6)
    assert {run.seed for run in comparison.plan()} == {0}
    finish(comparison.run("OPRD", 2e-3, 0), 0.1, 0.4, 0.7)
    later = [run for run in comparison.plan() if run.seed == 1]
    assert [(run.method, run.learning_rate) for run in later] == [("OPRD", 2e-3)]


def test_the_best_rate_is_that_of_the_second_half_and_not_of_the_start(comparison):
    finish(comparison.run("top-1", 1e-3, 0), 0.9, 0.3, 0.5)
    finish(comparison.run("top-1", 2e-3, 0), 0.1, 0.4, 0.5)
    assert comparison.best("top-1")[0].learning_rate == 2e-3


def test_the_best_rate_of_an_unfinished_grid_is_refused(comparison):
    with pytest.raises(ValueError, match="'OPRD' on 'sums' is not finished"):
        comparison.best("OPRD")


def test_findings_say_final_accuracy_and_the_steps_to_the_target(comparison, monkeypatch):
    monkeypatch.setattr("lab.comparison.model_accuracy", lambda m: 1.0 if m.step > 1000 else 0.0)
    for method, top in (("OPRD", 1.0), ("top-1", 0.8)):
        for rate in comparison.rates:
            for seed in comparison.seeds:
                finish(comparison.run(method, rate, seed), 0.0, 0.5, top)
    found = comparison.findings()
    assert found["target"] == pytest.approx(0.9)
    assert found["methods"]["OPRD"]["steps_to_target"] == [pytest.approx(18)] * 2
    assert found["methods"]["OPRD"]["final"]["mean"] == 1.0
    text = "\n".join(table(json.loads(json.dumps(found))))
    assert "| top-1 | 0.001 | 80.0% [80.0, 80.0] | not reached |" in text


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="no method OPD"):
        Comparison("sums", ("OPRD", "OPD"))
