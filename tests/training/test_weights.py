"""Terms that hand over to one another within a run."""

import json

import pytest
import torch

from oprd.training.plan import Plan
from tests import tiny
from tests.training import runs
from tests.training.runs import largest_difference, settings, trainer, weights
from tests.training.test_trainer import logged

AWAY = {"from": 1, "to": 0, "start": 1, "steps": 2}
TOWARDS = {"from": 0, "to": 0.5, "start": 1, "steps": 2}
CROSS = {
    "output_loss": "reverse_kl",
    "representation_weight": AWAY,
    "output_weight": TOWARDS,
    "max_steps": 5,
}


def test_a_run_logs_the_weights_of_each_step(tmp_path):
    trainer(tmp_path, **CROSS).train()
    assert logged(tmp_path, "weight/representation") == [1, 1, 0.5, 0, 0]
    assert logged(tmp_path, "weight/output") == [0, 0, 0.25, 0.5, 0.5]


def test_weights_are_counted_within_each_stage(tmp_path):
    changing = {name: value for name, value in CROSS.items() if name != "max_steps"}
    stages = [{"steps": 2}, {"steps": 4, **changing}]
    trainer(tmp_path, stages=stages, max_steps=6).train()
    assert logged(tmp_path, "weight/representation") == [1, 1, 0.5, 0]
    assert logged(tmp_path, "weight/output") == [0, 0, 0.25, 0.5]


def test_weights_that_stay_are_not_logged(tmp_path):
    trainer(tmp_path, output_loss="reverse_kl", output_weight=0.5).train()
    assert "weight/" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_step_needs_what_its_terms_do_and_nothing_else(tmp_path):
    pair = tiny.model(seed=1), tiny.model(seed=2)
    plan = Plan.of(settings(tmp_path, **CROSS), *pair, same_meaning=True)
    found = [plan.update(step).needs(step=plan.within(step)) for step in range(5)]
    assert [needs.states for needs in found] == [True, True, True, False, False]
    assert [needs.last for needs in found] == [False, False, True, True, True]
    assert [plan.compares_rows(step) for step in range(5)] == [True, True, True, False, False]
    # Diagnostics compare states all the same.
    assert plan.update(4).needs(True, step=4).states


@pytest.mark.parametrize("scale", ["none", "unit", "layer"])
@pytest.mark.parametrize("updates", [1, 2])
def test_each_step_is_that_of_a_run_with_its_weights(tmp_path, scale, updates):
    """Plain SGD has no memory, so that runs in a row, a step each, are one run."""
    options = {"shuffle_dataset": False, "max_grad_norm": 0.0, "scale": scale}
    options |= {"learning_rate": 1e-3, "prompts": runs.PROMPTS[:4], "updates_per_rollout": updates}
    in_one = tiny.model(seed=1)
    trainer(tmp_path / "one", student=in_one, **options, **CROSS | {"max_steps": 4}).train()
    in_turn, steps = tiny.model(seed=1), [(1.0, None), (1.0, None), (0.5, 0.25), (0.0, 0.5)]
    # Sizes are measured once, by the first of the runs.
    sizes = None
    for number, (representation, output) in enumerate(steps):
        terms = {"representation_weight": representation}
        terms |= {"output_loss": "reverse_kl", "output_weight": output} if output else {}
        once = options | {"updates_per_rollout": 1}
        made = trainer(tmp_path / str(number), student=in_turn, **once, **terms)
        if sizes:
            made._teacher.mean_squares = sizes
        made.train()
        sizes = sizes or made._teacher.mean_squares
    assert largest_difference(weights(in_one), weights(in_turn)) < 1e-6


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_a_run_resumed_as_terms_hand_over_ends_with_the_weights_of_one_never_stopped(
    tmp_path, shape
):
    options = {
        **CROSS,
        "rollout": None,
        "representation_weight": {**AWAY, "steps": 3, "shape": shape},
        "output_weight": {**TOWARDS, "steps": 3, "shape": shape},
        "optim": "adamw_torch",
        "learning_rate": 1e-2,
        "save_strategy": "steps",
        "save_steps": 1,
    }

    def run(resume=None):
        trained = tiny.model(seed=1)
        made = trainer(tmp_path, student=trained, **options)
        made.train(resume_from_checkpoint=resume)
        return weights(trained), logged(tmp_path, "weight/output")

    whole, found = run()
    for stopped in (2, 3):
        resumed, again = run(str(tmp_path / f"checkpoint-{stopped}"))
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
        assert again == found


def test_a_run_with_other_weights_is_not_gone_on_with(tmp_path):
    options = {**CROSS, "save_strategy": "steps", "save_steps": 2}
    trainer(tmp_path, **options).train()
    other = {**options, "output_weight": {**TOWARDS, "shape": "cosine"}}
    with pytest.raises(ValueError, match="output_weight"):
        trainer(tmp_path, **other).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    same = {**options, "output_weight": json.dumps({**TOWARDS, "shape": "linear"})}
    trainer(tmp_path, **same).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_an_evaluation_weighs_as_the_last_update_did(tmp_path):
    made = trainer(tmp_path, **CROSS, eval_prompts=runs.PROMPTS[:4], eval_strategy="steps")
    made.train()
    assert made.evaluate()["eval_weight/output"] == 0.5
    assert "eval_rep_cosine" not in made.evaluate()


def test_a_student_that_hands_over_is_not_taken_for_one_of_another_origin(tmp_path, caplog):
    """The first step that compares states is where it shows, not the first step."""
    late = {**CROSS, "representation_weight": TOWARDS, "output_weight": AWAY}
    trainer(tmp_path, **late, learning_rate=1e-6).train()
    assert "seem to be of different origin" in caplog.text
