"""What a run's settings name is tried before a model is loaded."""

import pytest
from transformers import EarlyStoppingCallback, TrainerCallback

from oprd import OPRDConfig
from oprd.models.trial import check_callbacks


def settings(**options) -> OPRDConfig:
    return OPRDConfig(use_cpu=True, **options)


@pytest.mark.parametrize("names", ["tensorboard,trackio", ["tensorboard", "trackio"]])
def test_a_tracker_that_is_not_installed_is_named_with_the_command_that_installs_it(
    monkeypatch, names
):
    def missing(self):
        raise RuntimeError("it requires tensorboard to be installed.")

    kind = type("Missing", (TrainerCallback,), {"__init__": missing})
    monkeypatch.setitem(trackers(), "tensorboard", kind)
    with pytest.raises(ImportError, match=r"report_to='tensorboard': .*`pip install tensorboard`"):
        settings(report_to=names)


def test_each_of_several_trackers_is_tried(monkeypatch):
    made = []
    for name in ("tensorboard", "trackio"):
        kind = type(name, (TrainerCallback,), {"__init__": lambda self, n=name: made.append(n)})
        monkeypatch.setitem(trackers(), name, kind)
    assert settings(report_to="tensorboard, trackio").report_to == ["tensorboard", "trackio"]
    assert made == ["tensorboard", "trackio"]


def trackers() -> dict:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    return INTEGRATION_TO_CALLBACK


def test_a_tracker_that_there_is_not_is_refused_with_the_closest():
    with pytest.raises(ValueError, match=r"got 'trackoi': did you mean 'trackio'\?"):
        settings(report_to="trackoi")


@pytest.mark.parametrize(
    ("name", "package"),
    [("adamw_bnb_8bit", "bitsandbytes"), ("galore_adamw", "galore_torch"), ("lomo", "lomo")],
)
def test_an_optimizer_that_is_not_installed_is_named_with_what_to_install(name, package):
    with pytest.raises(ImportError, match=f"optim='{name}': .*[Ii]nstall.*{package}"):
        settings(optim=name, optim_target_modules=["q_proj"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optim": "adamw_tor"}, "got 'adamw_tor': did you mean 'adamw_torch'?"),
        ({"lr_scheduler_kwargs": {"speed": 1}}, "lr_scheduler_type='cosine' with lr_sched"),
        ({"generation_kwargs": {"top_q": 1}}, "no 'top_q': did you mean 'top_p'"),
        ({"torch_compile": True}, "torch_compile=True has no effect here"),
        ({"torch_compile_backend": "inductor"}, "torch_compile_backend=inductor has no effect"),
        ({"fp16": True}, "fp16=True has no effect without an accelerator"),
    ],
)
def test_what_cannot_be_built_or_has_no_effect_is_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        settings(**options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eval_tasks": "additions", "eval_steps": 1},
        {"metric_for_best_model": "loss"},
        {"eval_strategy": "steps", "eval_steps": 1},
    ],
)
@pytest.mark.parametrize("callback", [EarlyStoppingCallback, EarlyStoppingCallback(2)])
def test_early_stopping_by_nothing_that_is_measured_is_refused(options, callback):
    with pytest.raises(
        ValueError, match=r"EarlyStoppingCallback stops by what eval_strategy .*'st"
    ):
        check_callbacks([TrainerCallback, callback], settings(**options))


def test_early_stopping_by_what_is_measured_is_for_transformers():
    options = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "loss"}
    check_callbacks([EarlyStoppingCallback()], settings(**options))


@pytest.mark.parametrize(
    "metric", ["additions/avg@4", "eval_mine/length", "eval/additions/maj@4", "pass@2"]
)
def test_a_tasks_figure_is_for_keep_best(metric):
    with pytest.raises(ValueError, match=r"is a figure of a task.*keep_best='"):
        settings(eval_tasks="additions,mine=tasks.jsonl", metric_for_best_model=metric)
