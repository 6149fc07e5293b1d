"""A run whose student gets worse while its states get better."""

import json
import logging

import pytest

from oprd.training.task_evaluation import TaskEvaluation
from tests.training import runs
from tests.training.runs import settings, trainer

OPTIONS = {
    "prompts": runs.PROMPTS[:4],
    "shuffle_dataset": False,
    "learning_rate": 1e-2,
    "max_grad_norm": 0.0,
    "max_steps": 8,
    "eval_steps": 1,
    "eval_tasks": "additions",
    "eval_samples": 2,
    "eval_limit": 1,
    "false_progress_window": 4,
    "keep_best": "additions/avg@2",
}


@pytest.fixture
def falling(monkeypatch):
    """The student's figure falls from evaluation to evaluation."""
    monkeypatch.setattr(
        TaskEvaluation, "_evaluate_on", lambda self, task, step: {"avg@2": 0.9 - step / 100}
    )


def warnings(caplog) -> list[str]:
    return [text for text in caplog.messages if text.startswith("False progress")]


def test_a_run_warns_once_with_both_curves_and_goes_on(tmp_path, falling, caplog):
    made = trainer(tmp_path, **OPTIONS)
    with caplog.at_level(logging.WARNING):
        made.train()
    assert made.state.global_step == 8
    (text,) = warnings(caplog)
    # The figure of before the first step has no cosine beside it, and that after a step has the
    # cosines up to the step before.
    assert "from step 2 to 5 rep_cosine got better (" in text
    assert "while eval/additions/avg@2 got worse (0.88 0.87 0.86 0.85)" in text
    kept = json.loads((tmp_path / "run.json").read_text())["false_progress"]
    assert kept["steps"] == [2, 3, 4, 5]
    assert kept["better_values"] == sorted(kept["better_values"])


def test_a_run_that_is_to_stop_ends_and_keeps_its_best_student(tmp_path, falling, caplog):
    made = trainer(tmp_path, **OPTIONS, stop_on_false_progress=True)
    with caplog.at_level(logging.WARNING):
        made.train()
    assert made.state.global_step == 5
    (text,) = warnings(caplog)
    assert "The run ends; the student with the highest additions/avg@2 is in best." in text
    assert json.loads((tmp_path / "best" / "best.json").read_text())["step"] == 0


def test_a_resumed_run_goes_on_looking_and_does_not_warn_again(tmp_path, falling, caplog):
    options = {**OPTIONS, "save_strategy": "steps", "save_steps": 1}
    trainer(tmp_path, **options).train()

    def resumed(step):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            made = trainer(tmp_path, **options)
            made.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert json.loads((tmp_path / "run.json").read_text())["false_progress"]["steps"][-1] == 5
        return len(warnings(caplog))

    assert resumed(6) == 0
    assert resumed(3) == 1


def test_a_window_has_two_halves_and_a_run_that_stops_has_a_best_student(tmp_path):
    with pytest.raises(ValueError, match="false_progress_window=5 must be even"):
        settings(tmp_path, false_progress_window=5)
    with pytest.raises(ValueError, match="false_progress_window must be a whole number of at lea"):
        settings(tmp_path, false_progress_window=2)
    with pytest.raises(ValueError, match=r"stop_on_false_progress .*: set keep_best"):
        settings(tmp_path, stop_on_false_progress=True)
