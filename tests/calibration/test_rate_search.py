"""learning_rate: auto. The run begins as if there had been no search, at the rate that it found."""

import json

import pytest
import torch

from tests import tiny
from tests.training import runs
from tests.training.runs import PROMPTS, trainer, weights

AUTO = {
    "learning_rate": "auto",
    "optim": "adamw_torch",
    "rollout": None,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "max_steps": 4,
}


def found(folder):
    return json.loads((folder / "run.json").read_text())["learning_rate_test"]


def test_the_run_is_that_of_the_rate_that_was_found_to_the_last_bit(tmp_path):
    def run(folder, **options):
        student = tiny.model(seed=1, attention_dropout=0.2)
        made = trainer(folder, student, **{**AUTO, **options})
        made.train()
        kept = ("loss", "learning_rate", "grad_norm", "num_tokens", "supervised_tokens")
        lines = [line for line in made.state.log_history if "loss" in line]
        return weights(made.student), [{name: line[name] for name in kept} for line in lines]

    searched, log = run(tmp_path / "auto")
    rate = found(tmp_path / "auto")["learning_rate"]
    assert 1e-5 < rate < 1e-1
    given, expected = run(tmp_path / "given", learning_rate=rate)
    assert log == expected
    assert all(torch.equal(given[name], searched[name]) for name in given)


def test_a_run_in_stages_goes_on_at_the_rate_that_was_found(tmp_path):
    options = {
        **{**AUTO, "max_steps": -1},
        "stages": [{"steps": 2}, {"steps": 2}],
        "save_strategy": "steps",
        "save_steps": 1,
    }

    def run(resume=None):
        made = trainer(tmp_path, tiny.model(seed=1), **options)
        made.train(resume)
        return weights(made.student)

    whole = run()
    resumed = run(str(tmp_path / "checkpoint-1"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("options", "changing"),
    [
        ({}, False),
        ({"output_loss": "reverse_kl"}, False),
        ({"output_loss": "reverse_kl", "output_weight": {"from": 0, "to": 1, "steps": 2}}, True),
        ({"max_steps": -1, "stages": [{"steps": 2}, {"steps": 2}]}, True),
    ],
)
def test_a_run_whose_objective_changes_says_that_its_rate_is_of_the_first(
    tmp_path, options, changing
):
    trainer(tmp_path, **{**AUTO, **options}).train()
    assert any("first step's objective" in doubt for doubt in found(tmp_path)["doubts"]) == changing


@pytest.mark.parametrize(
    "options",
    [
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        {"updates_per_rollout": 2},
        {"scale": "layer"},
        {"output_loss": "reverse_kl", "representation_weight": 0.0},
        {"peft": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_every_kind_of_update_can_be_tried(tmp_path, options):
    if options.pop("peft", False):
        from peft import LoraConfig

        options["peft_config"] = LoraConfig(**runs.LORA)
    made = trainer(tmp_path, **{**AUTO, **options})
    made.train()
    assert max(line.get("learning_rate", 0) for line in made.state.log_history) == pytest.approx(
        found(tmp_path)["learning_rate"]
    )


def test_it_does_not_matter_how_the_batch_is_split(tmp_path):
    def search(folder, **split):
        made = trainer(folder, **{**AUTO, "rollout": runs.scripted, "max_steps": 1, **split})
        made.train()
        return found(folder)

    whole = search(tmp_path / "whole", per_device_train_batch_size=8)
    split = search(tmp_path / "split", per_device_train_batch_size=2, gradient_accumulation_steps=4)
    assert split["learning_rate"] == whole["learning_rate"]
    assert split["losses"][:12] == pytest.approx(whole["losses"][:12], rel=1e-4)


def test_a_resumed_run_keeps_the_rate_that_was_found(tmp_path):
    options = {**AUTO, "save_strategy": "steps", "save_steps": 2}
    whole = trainer(tmp_path / "whole", **options)
    whole.train()
    checkpoint = str(tmp_path / "whole" / "checkpoint-2")
    resumed = trainer(tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=checkpoint)
    expected, given = weights(whole.student), weights(resumed.student)
    assert all(torch.equal(expected[name], given[name]) for name in expected)
    assert found(tmp_path / "resumed") == found(tmp_path / "whole")


def test_a_run_that_found_no_rate_cannot_go_on_as_one_that_did(tmp_path):
    options = {**AUTO, "save_strategy": "steps", "save_steps": 2}
    trainer(tmp_path, **{**options, "learning_rate": 1e-3}).train()
    made = trainer(tmp_path, **options)
    with pytest.raises(ValueError, match="does not say which rate it found: set learning_rate"):
        made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_a_teacher_that_is_the_student_has_no_rate_and_is_left_as_it_was(tmp_path):
    student = tiny.model(seed=1)
    before = weights(student)
    made = trainer(tmp_path, student, tiny.model(seed=1), **AUTO)
    with pytest.raises(ValueError, match="found no rate between"):
        made.train()
    assert all(torch.equal(before[name], after) for name, after in weights(student).items())


def test_the_record_says_that_the_rate_was_to_be_found_and_the_curve_is_shown(tmp_path, capsys):
    trainer(tmp_path, prompts=PROMPTS[:4], **AUTO).train()
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["settings"]["learning_rate"] == "auto"
    shown = capsys.readouterr().out
    assert "Range test of the learning rate" in shown
    assert "the batch has 4 rollouts" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": "autos"}, "learning_rate must be a number, got 'autos'"),
        ({"lr_scheduler_kwargs": {"min_lr": 1e-6}}, "give a share of it, min_lr_rate"),
        (
            {"stages": [{"steps": 1}, {"steps": 1, "learning_rate": 1e-3}]},
            "stage 2 has a learning_rate, and that of the run is 'auto'",
        ),
        (
            {"output_loss": "sampled"},
            "learning_rate='auto' makes several updates on them: .* set a",
        ),
        ({"fp16": True}, "without the loss scaling of fp16"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "'reduce_lr_on_plateau' follows the loss"),
    ],
)
def test_what_a_search_cannot_do_is_refused_at_construction(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        runs.settings(tmp_path, **{"learning_rate": "auto", **options})
