"""A plan as an object: which update a step makes, and at what rate."""

import pytest
import torch

from oprd.training.plan import Plan
from tests import tiny
from tests.training.runs import settings

STAGES = [
    {"steps": 4, "learning_rate": 0.5},
    {"steps": 2, "representation_weight": 0.0, "output_loss": "reverse_kl"},
]


def made(tmp_path, **options) -> Plan:
    student, teacher = tiny.model(seed=1), tiny.model(seed=2)
    return Plan.of(settings(tmp_path, **options), student, teacher, same_meaning=True)


def rates(plan: Plan, steps: int) -> list[float]:
    """The rates at which a run trains."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=plan._args.learning_rate)
    scheduler, found = plan.scheduler(optimizer, steps), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_a_run_without_stages_makes_one_update_at_every_step(tmp_path):
    plan = made(tmp_path)
    assert plan.update(0) is plan.update(10**6)
    assert plan.stage(5) == 0


def test_a_step_makes_the_update_of_its_stage_and_after_the_last_one_the_last(tmp_path):
    plan = made(tmp_path, stages=STAGES, max_steps=-1)
    assert [plan.stage(step) for step in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [update.needs().last for update in plan.updates] == [False, True]
    assert plan.update(4) is plan.updates[1]


def test_the_rate_warms_up_and_runs_through_its_schedule_once_in_each_stage(tmp_path):
    plan = made(
        tmp_path,
        stages=STAGES,
        max_steps=-1,
        learning_rate=0.1,
        lr_scheduler_type="linear",
        warmup_steps=0,
    )
    assert rates(plan, 6) == pytest.approx([0.5, 0.375, 0.25, 0.125, 0.1, 0.05])


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant_with_warmup"])
def test_every_step_of_a_warm_up_trains_the_first_included(tmp_path, kind):
    plan = made(tmp_path, learning_rate=1.0, lr_scheduler_type=kind, warmup_steps=3)
    found = rates(plan, 10)
    assert found[:3] == pytest.approx([0.25, 0.5, 0.75])
    assert found[3] == pytest.approx(1.0)
    assert all(rate > 0 for rate in found)


def test_a_schedule_that_depends_on_more_than_the_step_is_left_to_transformers(tmp_path):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    plateau = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"}
    assert made(tmp_path, **plateau).scheduler(optimizer, 10) is None
    staged = made(tmp_path, stages=STAGES, max_steps=-1, **plateau)
    with pytest.raises(ValueError, match="does not follow from the step alone"):
        staged.scheduler(optimizer, 10)


def test_settings_of_any_stage_that_do_not_fit_the_models_are_refused(tmp_path):
    student, teacher = tiny.model(seed=1), tiny.model(seed=2, hidden_size=48)
    args = settings(tmp_path, stages=[STAGES[1], STAGES[0]], max_steps=-1)
    with pytest.raises(ValueError, match="32 wide and the teacher's 48"):
        Plan.of(args, student, teacher, same_meaning=True)
