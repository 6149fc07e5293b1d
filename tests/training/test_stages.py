"""One run, several objectives in turn."""

import json
import math

import pytest
import torch

from oprd.core.output.divergence import ReverseKL
from oprd.settings.stages import Schedule
from tests import tiny
from tests.training import runs
from tests.training.runs import largest_difference, trainer, weights
from tests.training.test_trainer import logged

TWO = [
    {"steps": 3},
    {"steps": 2, "representation_weight": 0, "output_loss": "reverse_kl", "learning_rate": 0.02},
]


def settings(**options):
    return runs.settings("unused", **{"max_steps": -1, **options})


def test_steps_belong_to_the_stage_they_fall_in():
    schedule = Schedule([3, 2])
    assert [schedule.at(step) for step in range(7)] == [0, 0, 0, 1, 1, 1, 1]
    assert [schedule.start(stage) for stage in (0, 1)] == [0, 3]
    assert [Schedule([]).at(step) for step in (0, 100)] == [0, 0]


def test_a_stage_has_what_it_sets_and_the_runs_settings_beside():
    first, second = settings(stages=TWO, learning_rate=0.1, reduction="token").objectives()
    assert (first.representation_weight, first.output, first.learning_rate) == (1.0, None, 0.1)
    assert (second.representation_weight, second.learning_rate) == (0, 0.02)
    assert second.output == ReverseKL()
    assert first.reduction == second.reduction == "token"


def test_stages_decide_the_number_of_steps_and_may_be_ended_sooner():
    assert settings(stages=TWO).max_steps == 5
    assert settings(stages=TWO, max_steps=4).max_steps == 4
    with pytest.raises(ValueError, match="max_steps=6 is more than the 5 steps of the stages"):
        settings(stages=TWO, max_steps=6)


def test_states_meet_at_unit_length_in_each_stage_unless_one_says_otherwise():
    def scales(stages, **options):
        return [s.scale for s in settings(stages=stages, **options).objectives()]

    bridged = {"steps": 1, "bridge": "fit"}
    assert scales([bridged, {"steps": 1}], scale=None) == ["unit", "unit"]
    assert scales([{**bridged, "scale": "none"}, {"steps": 1}], scale=None) == ["none", "unit"]
    relational = {"steps": 1, "state_loss": "gram"}
    assert scales([{"steps": 1}, relational], scale=None) == ["unit", "none"]
    assert scales([bridged, {"steps": 1}], scale="layer") == ["layer", "layer"]


def test_a_command_line_gives_them_as_json():
    assert settings(stages=json.dumps(TWO)).objectives()[1].learning_rate == 0.02


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("[{", "stages must be a JSON list of mappings"),
        ([], "stages must be a list of mappings"),
        ({"steps": 1}, "stages must be a list of mappings"),
        ([1], "stage 1 must be a mapping with its steps, got 1"),
        ([{"steps": 1}, {}], "stage 2 needs steps, a whole number of at least 1, got None"),
        ([{"steps": 0}], "stage 1 needs steps"),
        ([{"steps": True}], "stage 1 needs steps"),
        ([{"steps": 1, "outputloss": "topk"}], "cannot set 'outputloss': did you mean output_loss"),
        ([{"steps": 1, "layers": "last"}], "stage 1 cannot set 'layers'"),
        ([{"steps": 1, "output_loss": "kl"}], "stage 1: output_loss must be one of"),
        ([{"steps": 1, "representation_weight": 0}], "stage 1: representation_weight must be"),
        ([{"steps": 1, "learning_rate": -1}], "stage 1: learning_rate must be above 0"),
        ([{"steps": 1, "bridge": 8}], "stage 1: bridge must be a path"),
        ([{"steps": 1, "bridge": ""}], "stage 1: bridge must be a path"),
        ([{"steps": 1, "scale": "row"}], "stage 1: scale must be one of none, layer, unit"),
        ([{"steps": 1, "normalize": True}], "normalize has become scale: 'unit' for true"),
    ],
)
def test_stages_that_cannot_be_are_refused_at_construction(stages, message):
    with pytest.raises(ValueError, match=message):
        settings(stages=stages)


def test_stages_change_between_rollouts():
    with pytest.raises(ValueError, match="stage 1 has 3 steps, which must be a multiple of upd"):
        settings(stages=TWO, updates_per_rollout=2)


def test_the_metrics_show_the_change_of_the_objective(tmp_path):
    trainer(tmp_path, max_steps=-1, stages=TWO).train()
    assert logged(tmp_path, "stage") == [1, 1, 1, 2, 2]
    assert len(logged(tmp_path, "rep_cosine")) == 3
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert ["rep_cosine" in line for line in lines if "loss" in line] == [True] * 3 + [False] * 2


@pytest.mark.parametrize("change", [1, 2])
def test_each_stage_trains_as_a_run_of_its_own_would(tmp_path, change):
    """Plain SGD has no memory, so that two runs in a row take the same steps."""
    stages = [{**TWO[0], "steps": change}, {**TWO[1], "steps": 1}]
    in_one = tiny.model(seed=1)
    options = {"prompts": runs.PROMPTS[:4], "shuffle_dataset": False, "max_grad_norm": 0.0}
    trainer(tmp_path, student=in_one, max_steps=-1, stages=stages, **options).train()
    in_two = tiny.model(seed=1)
    trainer(tmp_path, student=in_two, max_steps=change, **options).train()
    second = {k: v for k, v in TWO[1].items() if k != "steps"}
    trainer(tmp_path, student=in_two, max_steps=1, **options, **second).train()
    assert largest_difference(weights(in_one), weights(in_two)) < 1e-6


def test_the_learning_rate_runs_through_its_schedule_once_in_each_stage(tmp_path):
    stages = [{"steps": 4}, {"steps": 2, "learning_rate": 0.01}]
    trainer(
        tmp_path,
        max_steps=-1,
        stages=stages,
        learning_rate=0.1,
        lr_scheduler_type="cosine",
        warmup_steps=0.25,
    ).train()
    # Warm-up of one step in each, at half the peak: a quarter of 4, and a quarter of 2 rounded up.
    cosine = [0.1 * (1 + math.cos(math.pi * k / 3)) / 2 for k in range(3)]
    expected = [0.05, *cosine, 0.005, 0.01]
    assert logged(tmp_path, "learning_rate") == pytest.approx(expected)


def test_an_absolute_floor_of_the_learning_rate_holds_in_each_stage(tmp_path):
    trainer(
        tmp_path,
        max_steps=-1,
        stages=[{"steps": 4}, {"steps": 4, "learning_rate": 0.01}],
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": 0.002},
    ).train()
    assert min(logged(tmp_path, "learning_rate")) >= 0.002


def test_a_schedule_that_watches_the_loss_is_refused(tmp_path):
    made = trainer(
        tmp_path,
        max_steps=-1,
        stages=TWO,
        lr_scheduler_type="reduce_lr_on_plateau",
        eval_strategy="steps",
        eval_prompts=runs.PROMPTS[:4],
    )
    with pytest.raises(ValueError, match="as that of a run in stages must: choose another"):
        made.train()


@pytest.mark.parametrize("stopped", [1, 2, 3, 4])
def test_a_run_resumed_in_any_stage_ends_with_the_weights_of_one_never_stopped(tmp_path, stopped):
    options = {
        "rollout": None,
        "max_steps": -1,
        "stages": TWO,
        "optim": "adamw_torch",
        "learning_rate": 1e-2,
        "lr_scheduler_type": "linear",
        "save_strategy": "steps",
        "save_steps": 1,
    }

    def run(folder, resume=None):
        trained = tiny.model(seed=1)
        made = trainer(folder, student=trained, **options)
        made.train(resume_from_checkpoint=resume)
        return weights(trained), logged(folder, "stage")

    whole, stages = run(tmp_path / "whole")
    resumed, found = run(tmp_path / "whole", str(tmp_path / "whole" / f"checkpoint-{stopped}"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert found == stages == [1, 1, 1, 2, 2]
