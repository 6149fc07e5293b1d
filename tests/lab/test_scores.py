import json

import pytest

from lab import scores as module
from lab.scores import held_out, scores


@pytest.mark.parametrize("task", ["lab.sums", "lab.sorting"])
def test_no_tuning_problem_is_reported(task):
    reported, tuning = held_out(task, "reported"), held_out(task, "tuning")
    assert len(reported.problems) == 250
    assert len(tuning.problems) > 200
    prompts = {problem.prompt for problem in reported.problems}
    assert not prompts & {problem.prompt for problem in tuning.problems}


def test_tuning_problems_are_graded_like_the_reported_ones():
    problem = held_out("lab.sums", "tuning").problems[0]
    assert held_out("lab.sums", "tuning").verdict(f"={problem.gold}", problem).correct


def test_scores_are_computed_once(tmp_path, monkeypatch):
    calls = []

    def figures(model, task, part, count):
        calls.append((part, count))
        return {"accuracy": 0.5}

    monkeypatch.setattr(module, "_figures", figures)
    file = tmp_path / "a" / "scores.json"
    counts = {"reported": 8, "tuning": 4}
    first = scores(tmp_path, "lab.sums", file, counts)
    assert scores(tmp_path, "lab.sums", file, counts) == first == json.loads(file.read_text())
    assert sorted(calls) == [("reported", 8), ("tuning", 4)]


def test_problems_that_are_not_counted_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_figures", lambda *_: {"accuracy": 0.5})
    found = scores(tmp_path, "lab.sums", tmp_path / "scores.json", {"reported": 2, "curve": 1})
    assert set(found) == {"reported"}
