import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from oprd.runs import kept
from oprd.runs.identity import as_it_began, changes, check_changes
from oprd.runs.kept import KEPT_SETTINGS, may_change
from oprd.settings.run import OPRDConfig
from tests.runs.saved import checkpoint, without_manifest

LOSS: dict[str, Any] = {
    "teacher_source": "ema",
    "teacher_batches": "pure",
    "ema_decay": 0.99,
    "extrapolation": 1.25,
    "extrapolation_power": 2,
    "teacher_template": "{{ prompt }} {{ solution }}",
    "teacher_system_prompt": None,
    "teacher_chat_template_kwargs": {"enable_thinking": True},
    "teacher_tokenizer": "student",
    "teacher_special_tokens": None,
    "end_tokens": "either",
    "positions": "all",
    "position_k": 2000,
    "updates_per_rollout": 1,
    "rollouts_ahead": 1,
    "replay": 16,
    "replay_share": 0.5,
    "max_drift_kl": 0.1,
    "curriculum": "error",
    "curriculum_floor": 0.5,
    "state_loss": "mse",
    "state_loss_kwargs": None,
    "representation_weight": 1.0,
    "scale": "unit",
    "output_loss": "topk",
    "output_loss_kwargs": {"k": 4},
    "output_weight": 1.0,
    "reduction": "sequence",
    "prefix_gradients": True,
    "stages": [{"steps": 2, "scale": "none"}],
    "optim": "adamw_torch",
    "optim_args": None,
    "optim_target_modules": None,
}
OTHER: dict[str, Any] = {
    "teacher_source": "copy",
    "teacher_batches": "mixed",
    "ema_decay": 0.9,
    "extrapolation": 1.0,
    "extrapolation_power": 0,
    "teacher_template": None,
    "teacher_system_prompt": "Know {{ solution }}.",
    "teacher_chat_template_kwargs": None,
    "teacher_tokenizer": "own",
    "teacher_special_tokens": {"<|im_end|>": None},
    "end_tokens": "student",
    "positions": "last",
    "position_k": 3,
    "updates_per_rollout": 2,
    "rollouts_ahead": 2,
    "replay": 32,
    "replay_share": 0.25,
    "max_drift_kl": None,
    "curriculum": None,
    "curriculum_floor": 0.25,
    "state_loss": "gram",
    "state_loss_kwargs": {"factor": 2},
    "representation_weight": 0,
    "scale": "none",
    "output_loss": "none",
    "output_loss_kwargs": {"k": 8},
    "output_weight": 2.0,
    "reduction": "token",
    "prefix_gradients": False,
    "stages": None,
    "optim": "sgd",
    "optim_args": "a=1",
    "optim_target_modules": "all-linear",
}
MODEL = {"source": "owner/name", "revision": None, "weights": "a1"}
FACTS: dict[str, Any] = {
    "teacher": MODEL,
    "student": MODEL,
    "adapter": {"peft_type": "LORA", "r": 4},
    "layer_pairs": [(1, 1), (2, 2)],
    "bridges": [],
    "teacher_dtype": "torch.float32",
    "dataset": {"rows": 4, "hash": "b2"},
    "processes": 1,
}


def refused(before: dict[str, Any], now: dict[str, Any], *settings: dict[str, Any]) -> list[str]:
    return [
        change.name for change in changes(before, now, *(settings or ({}, {}))) if change.refused
    ]


def test_every_setting_that_a_run_keeps_is_tried_here():
    assert set(LOSS) == set(OTHER) == set(KEPT_SETTINGS)


@pytest.mark.parametrize("name", LOSS)
def test_a_run_does_not_go_on_towards_another_loss(name: str):
    found = changes({}, {}, LOSS, {**LOSS, name: OTHER[name]})
    with pytest.raises(
        ValueError, match=f"began with {name}=.*--allow_changed {name} where"
    ) as error:
        check_changes(found, "run/checkpoint-2", [])
    assert "the run of 'run/checkpoint-2'" in str(error.value)
    check_changes(found, "run/checkpoint-2", [name])


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("teacher", {**MODEL, "weights": "c3"}),
        ("student", {**MODEL, "weights": "c3"}),
        ("adapter", {"peft_type": "LORA", "r": 8}),
        ("adapter", {"peft_type": "none"}),
        ("layer_pairs", [(1, 1), (2, 3)]),
        ("bridges", ["d4"]),
    ],
)
def test_a_run_does_not_go_on_with_other_models_layers_or_bridges(name: str, other: Any):
    assert refused(FACTS, {**FACTS, name: other}) == [name]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("teacher_dtype", "torch.bfloat16"),
        ("dataset", {"rows": 4, "hash": "c3"}),
        ("processes", 2),
    ],
)
def test_other_prompts_and_processes_are_said_and_not_refused(name: str, other: Any):
    (change,) = changes(FACTS, {**FACTS, name: other}, {}, {})
    assert (change.name, change.refused) == (name, False)


def test_a_model_is_known_by_its_weights_wherever_it_is_from():
    moved = {**MODEL, "source": "/elsewhere", "revision": "v1"}
    assert not refused(FACTS, {**FACTS, "teacher": moved})


def test_a_model_whose_weights_are_in_pieces_is_known_by_where_it_is_from():
    unread = {**MODEL, "weights": None}
    assert not refused(FACTS, {**FACTS, "teacher": unread})
    other = {**unread, "source": "owner/other"}
    assert refused(FACTS, {**FACTS, "teacher": other}) == ["teacher"]
    # One that was built in memory has no name.
    assert not refused(FACTS, {**FACTS, "teacher": {**unread, "source": ""}})


def test_a_later_version_of_a_library_may_say_more_of_an_adapter():
    said = {**FACTS["adapter"], "new_option": False}
    assert not refused(FACTS, {**FACTS, "adapter": said})


@pytest.mark.parametrize(
    ("option", "before", "now"),
    [
        ("use_rslora", False, True),
        ("use_rslora", True, False),
        ("lora_dropout", 0.0, 0.1),
        ("lora_alpha", 8, 0),
        ("layers_to_transform", None, [1]),
        ("layers_to_transform", [1], None),
        ("rank_pattern", {}, {"q_proj": 2}),
    ],
)
def test_an_adapter_that_computes_otherwise_is_another_whatever_its_options_were(
    option: str, before: Any, now: Any
):
    adapter = FACTS["adapter"]
    began, goes_on = ({**FACTS, "adapter": {**adapter, option: v}} for v in (before, now))
    assert refused(began, goes_on) == ["adapter"]


@pytest.mark.parametrize("name", ["revision", "source"])
def test_what_a_model_does_not_say_of_itself_is_no_change(name: str):
    model = {**MODEL, "weights": None, "revision": "v1"}
    for value in (None, ""):
        known, unknown = {"student": model}, {"student": {**model, name: value}}
        assert not refused(known, unknown) and not refused(unknown, known)


@pytest.mark.parametrize(
    ("name", "before", "now"), [("data_seed", None, 0), ("top_k", 0, None), ("bf16", False, None)]
)
def test_a_setting_of_zero_or_false_is_given(name: str, before: Any, now: Any):
    (change,) = changes({}, {}, {name: before}, {name: now})
    assert (change.name, change.refused) == (name, False)


def classes() -> dict[str, tuple[str, ...]]:
    listed = ("KEPT_SETTINGS", "SAID_SETTINGS", "LENGTHS", "OF_FACTS", "ONE_VALUE", "FREE_SETTINGS")
    fields = [field.name for field in dataclasses.fields(OPRDConfig)]
    named = {name: tuple(getattr(kept, name)) for name in listed}
    begin = tuple(name for name in fields if name.startswith(kept.FREE_BEGINNINGS))
    return {**named, "FREE_BEGINNINGS": begin}


def test_every_setting_is_of_one_class_on_a_resume():
    counted = Counter(name for names in classes().values() for name in names)
    fields = {field.name for field in dataclasses.fields(OPRDConfig)}
    assert not {name: n for name, n in counted.items() if n > 1}
    assert fields - counted.keys() == set(), "say in runs/kept.py what a resume does with these"
    assert counted.keys() - fields == set(), "these are no settings"


@pytest.mark.parametrize("beginning", kept.FREE_BEGINNINGS)
def test_every_beginning_of_names_is_that_of_a_setting(beginning: str):
    assert any(field.name.startswith(beginning) for field in dataclasses.fields(OPRDConfig))


def test_what_a_setting_comes_to_is_a_fact_that_is_compared():
    assert set(kept.OF_FACTS.values()) <= {*kept.KEPT_FACTS, *kept.SAID_FACTS}


@pytest.mark.parametrize(
    "name",
    [
        "use_vllm",
        "max_tool_calling_iterations",
        "data_seed",
        "dataloader_drop_last",
        "full_determinism",
        "a_setting_of_a_later_version",
    ],
)
def test_what_changes_rollouts_or_their_order_and_what_is_not_known_is_said(name: str):
    (change,) = changes({}, {}, {name: 1}, {name: 2})
    assert (change.name, change.refused) == (name, False)
    assert not may_change(name)


@pytest.mark.parametrize("name", ["seed", "learning_rate", "temperature", "lr_scheduler_type"])
def test_a_schedule_a_seed_and_how_rollouts_are_drawn_may_change_and_are_said(name: str):
    (change,) = changes({}, {}, {name: 1}, {name: 2})
    assert (change.name, change.refused) == (name, False)
    assert change.words() == f"{name} (began with {name}=1, now 2)"


@pytest.mark.parametrize(
    "name",
    ["save_steps", "logging_steps", "eval_tasks", "report_to", "output_dir", "save_total_limit"],
)
def test_what_is_saved_logged_and_evaluated_may_change_without_a_word(name: str):
    assert not changes({}, {}, {name: 1}, {name: 2})


def test_more_steps_are_said_where_the_schedule_depends_on_them():
    settings = {"lr_scheduler_type": "cosine", "max_steps": 4}
    assert changes({}, {}, settings, {**settings, "max_steps": 8})
    settings["lr_scheduler_type"] = "constant"
    assert not changes({}, {}, settings, {**settings, "max_steps": 8})


FALLS: dict[str, Any] = {"from": 1, "to": 0, "start": 0, "steps": 0.5, "shape": "linear"}


def of_length(steps: int, **settings: Any) -> dict[str, Any]:
    return {"lr_scheduler_type": "constant", "max_steps": steps, **settings}


@pytest.mark.parametrize("name", [*kept.OVER_STAGE, *kept.OVER_RUN])
@pytest.mark.parametrize("given", [FALLS, {**FALLS, "start": 0.25, "steps": 10}])
def test_a_share_of_a_run_that_is_longer_now_is_told_as_another(name: str, given: dict[str, Any]):
    began, now = (of_length(steps, **{name: given}) for steps in (100, 200))
    (change,) = changes({}, {}, began, now)
    assert (change.name, change.refused) == (name, name in KEPT_SETTINGS)
    start, steps = int(100 * (given["start"] % 1)), 50 if given is FALLS else 10
    assert (change.before["start"], change.before["steps"]) == (start, steps)
    # In the steps that it began with it goes on.
    same = {**now, name: {**given, "start": start, "steps": steps}}
    assert not changes({}, {}, began, same)


@pytest.mark.parametrize("name", [*kept.OVER_STAGE, *kept.OVER_RUN])
def test_what_changes_over_steps_or_in_a_run_of_the_same_length_is_the_same(name: str):
    whole = {**FALLS, "steps": 60}
    assert not changes({}, {}, of_length(100, **{name: whole}), of_length(200, **{name: whole}))
    assert not changes({}, {}, of_length(100, **{name: FALLS}), of_length(100, **{name: FALLS}))


def test_a_share_of_stages_is_another_only_with_other_stages():
    stages = [{"steps": 100}, {"steps": 100}]
    began, now = (
        of_length(steps, stages=stages, representation_weight=FALLS, teacher_prefix=FALLS)
        for steps in (200, 150)
    )
    # It ends before the last stage does.
    assert [change.name for change in changes({}, {}, began, now)] == ["teacher_prefix"]


def test_every_setting_that_changes_over_a_run_is_compared_in_steps():
    # Not those of its fields, which a parser of arguments simplifies.
    kinds = get_type_hints(OPRDConfig)
    mappings = {n for n, kind in kinds.items() if "float" in str(kind) and "dict" in str(kind)}
    assert mappings | {"rollout_horizon"} == {*kept.OVER_RUN, *kept.OVER_STAGE}


@pytest.mark.parametrize("length", [None, -1, 0, True, 1.5, "8", 10**400])
@pytest.mark.parametrize("steps", [None, "0.5", -1e308, True, [1]])
def test_a_length_or_a_share_that_is_none_is_compared_as_it_is(length: Any, steps: Any):
    given = {**FALLS, "steps": steps}
    for weight, other in ((given, 100), (FALLS, length), (given, length)):
        began = of_length(length, output_weight=weight)
        assert not changes({}, {}, began, of_length(other, output_weight=weight))


def test_what_is_not_known_of_either_is_no_change():
    assert not changes({}, FACTS, {"positions": "all"}, LOSS)
    assert not changes({**FACTS, "dataset": None}, FACTS, LOSS, {**LOSS, "state_loss_kwargs": {}})


def test_all_that_is_refused_stands_in_one_sentence_on_one_line():
    other = {**LOSS, "positions": "last\n\x1b[31m", "optim": "x" * 1000}
    with pytest.raises(ValueError, match="--allow_changed positions,optim") as error:
        check_changes(changes({}, {}, LOSS, other), "checkpoint-2", ["scale"])
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)
    assert len(str(error.value)) < 600


def test_a_checkpoint_says_what_it_is_wherever_it_lies(tmp_path: Path):
    saved = checkpoint(tmp_path, 2, settings=LOSS, facts={"identity": FACTS})
    (tmp_path / "run.json").write_text("{}")
    found = as_it_began(saved.rename(tmp_path / "moved"))
    assert found["step"] == 2 and found["settings"]["positions"] == "all"
    assert found["facts"]["identity"]["teacher"] == MODEL


def test_of_an_earlier_version_the_record_says_what_it_knows(tmp_path: Path):
    old = without_manifest(tmp_path, 2)
    assert as_it_began(old)["facts"]["identity"] == {}
    record = {"teacher": "t", "student": "", "bridge_hashes": ["d4"], "settings": {"scale": "unit"}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    found = as_it_began(old)
    assert found["settings"] == {"scale": "unit"}
    assert found["facts"]["identity"] == {"teacher": {"source": "t"}, "bridges": ["d4"]}
    assert refused(found["facts"]["identity"], FACTS) == ["teacher", "bridges"]
