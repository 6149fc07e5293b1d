import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from lab import figures, results
from lab.results import Curve, Estimate, accuracy_by_seconds
from lab.runs import Run


def test_a_target_between_two_evaluations_is_reached_on_their_line():
    curve = Curve(np.array([0, 10, 20]), np.array([0.0, 0.5, 0.9]))
    assert curve.steps_to(0.7) == pytest.approx(15)
    assert curve.steps_to(0.0) == 0
    assert curve.steps_to(0.95) is None


def test_the_area_is_the_mean_height_whatever_the_spacing():
    assert Curve(np.array([0, 10, 100]), np.full(3, 0.4)).area == pytest.approx(0.4)


def test_the_interval_over_seeds_is_students():
    estimate = Estimate.of([0.8, 0.9, 1.0])
    # t(0.975, 2) · s / √3
    assert estimate.mean == pytest.approx(0.9)
    assert estimate.high == pytest.approx(0.9 + 4.302653 * 0.1 / 3**0.5)


def test_one_seed_has_no_interval():
    assert Estimate.of([0.5]) == Estimate(0.5, None, None)


def test_a_curve_leaves_out_the_steps_that_logged_nothing(tmp_path, monkeypatch):
    lines = [{"step": 1, "a": 0.5}, {"step": 2, "b": 1}, {"step": 3, "a": 0.7}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setattr(Run, "folder", tmp_path)
    run = Run("sums", "OPRD", 1e-3, 0)
    assert Curve.of(run, "a").steps.tolist() == [1, 3]
    with pytest.raises(KeyError, match="'c'"):
        Curve.of(run, "c")


def test_time_is_that_of_all_training_steps_before_an_evaluation(tmp_path, monkeypatch):
    name = "eval/lab.sums/avg@2"
    lines = [
        {"step": 0, name: 0.1},
        *({"step": step, "step_time": 10.0**step} for step in (1, 2)),
        {"step": 2, name: 0.4},
        {"step": 3, "step_time": 0.5, "diagnostics/reverse_kl": 0.1},
        {"step": 3, name: 0.6},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setattr(Run, "folder", tmp_path)
    curve = accuracy_by_seconds(Run("sums", "OPRD", 1e-3, 0))
    # A step with diagnostics counts as the median of the others.
    assert curve.steps.tolist() == [0, 110, 165]
    assert curve.values.tolist() == [0.1, 0.4, 0.6]


def test_results_and_pictures_that_were_cut_short_leave_the_earlier_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    before = results.write("one", {"a": 1}, False), figures.save(Figure(), "one", False)
    kept = [file.read_bytes() for file in before]

    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        results.write("one", {"a": 2}, False)
    with pytest.raises(KeyboardInterrupt):
        figures.save(Figure((1, 1)), "one", False)
    assert [file.read_bytes() for file in before] == kept
