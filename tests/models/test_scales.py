"""Errors relative to the size of the teacher's states, which is measured once in a run."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests import tiny
from tests.training import runs
from tests.training.runs import LORA, largest_difference, trainer, weights

LAYER = {"scale": "layer"}


def sizes(teacher, prompts, rollout=runs.scripted):
    """The mean square of every layer's states that predict a token of a rollout."""
    states = []
    for prompt in prompts:
        ids = tiny.tokenizer()(prompt)["input_ids"]
        both = torch.tensor([ids + rollout(ids)])
        with torch.no_grad():
            hidden = teacher(both, output_hidden_states=True).hidden_states[1:]
        states.append([layer[0, len(ids) - 1 : -1] for layer in hidden])
    return [torch.cat(layer).square().mean().item() for layer in zip(*states, strict=True)]


def recorded(folder):
    return json.loads((folder / "run.json").read_text())["layer_mean_squares"]


def test_each_layers_loss_is_relative_to_the_teachers_mean_square_there(tmp_path):
    prompts = runs.PROMPTS[:4]
    expected = []
    for layer, size in enumerate(sizes(tiny.model(seed=2), prompts), 1):
        plain = trainer(tmp_path / str(layer), prompts=prompts, scale="none", layers=str(layer))
        plain.train()
        expected.append(plain.state.log_history[0]["loss"] / size)
    made = trainer(tmp_path / "all", prompts=prompts, **LAYER)
    made.train()
    assert made.state.log_history[0]["loss"] == pytest.approx(sum(expected) / 3, rel=1e-5)


@pytest.mark.parametrize("factor", [1e-3, 30.0])
def test_the_step_does_not_depend_on_the_size_of_both_models_states(tmp_path, factor):
    def step(folder, scale):
        models = [tiny.model(seed=seed).double() for seed in (1, 2)]
        for model in models:
            # What follows the final norm, whose weight alone decides its size.
            model.base_model.norm.weight.data *= scale
        made = trainer(folder, *models, layers="last", **LAYER)
        made.train()
        return made.state.log_history[0]["loss"]

    ones = step(tmp_path / "one", 1.0)
    assert step(tmp_path / "scaled", factor) == pytest.approx(ones, rel=1e-5)


def test_sizes_are_measured_on_the_first_rollouts_and_kept(tmp_path):
    prompts = runs.PROMPTS[:8]
    made = trainer(tmp_path, prompts=prompts, max_steps=2, shuffle_dataset=False, **LAYER)
    made.train()
    expected = sizes(tiny.model(seed=2), prompts[:4])
    assert recorded(tmp_path) == {"": {str(n): pytest.approx(s) for n, s in enumerate(expected, 1)}}


def test_any_split_into_micro_batches_takes_the_same_step(tmp_path):
    def step(**options):
        trained = tiny.model(seed=1).double()
        teacher = tiny.model(seed=2).double()
        trainer(tmp_path, trained, teacher, shuffle_dataset=False, **LAYER, **options).train()
        return weights(trained)

    whole = step(per_device_train_batch_size=8)
    split = step(per_device_train_batch_size=2, gradient_accumulation_steps=4)
    assert largest_difference(whole, split) < 1e-6


def test_a_batch_without_responses_leaves_them_to_the_next_one(tmp_path):
    first = {tuple(tiny.tokenizer()(prompt)["input_ids"]) for prompt in runs.PROMPTS[:4]}

    def rollout(ids):
        return [] if tuple(ids) in first else runs.scripted(ids)

    made = trainer(tmp_path, rollout=rollout, max_steps=2, shuffle_dataset=False, **LAYER)
    made.train()
    expected = sizes(tiny.model(seed=2), runs.PROMPTS[4:8])
    assert list(recorded(tmp_path)[""].values()) == pytest.approx(expected)


def test_a_teacher_whose_states_are_all_zero_gives_a_finite_loss(tmp_path):
    teacher = tiny.model(seed=2)
    teacher.base_model.norm.weight.data.zero_()
    made = trainer(tmp_path, teacher=teacher, layers="last", **LAYER)
    made.train()
    assert made.state.log_history[0]["loss"] > 0
    assert all(parameter.isfinite().all() for parameter in made.student.parameters())


def test_a_broken_teacher_is_named_before_the_first_update(tmp_path):
    teacher = tiny.model(seed=2)
    teacher.base_model.layers[1].mlp.down_proj.weight.data.fill_(torch.nan)
    made = trainer(tmp_path, teacher=teacher, **LAYER)
    with pytest.raises(FloatingPointError, match="the teacher's states at layer 2 are not finite"):
        made.train()


def test_a_teacher_on_the_students_base_is_measured_as_the_teacher(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    tiny.model(seed=1).save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    teacher = get_peft_model(tiny.model(seed=1), LoraConfig(**LORA))
    for name, parameter in teacher.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter) / 3
    teacher.peft_config["default"].base_model_name_or_path = str(base)
    teacher.save_pretrained(adapter)
    options = {"peft_config": LoraConfig(**LORA), "shuffle_dataset": False, **LAYER}
    made = trainer(tmp_path / "run", str(base), str(adapter), **options)
    made.train()
    assert made.shares_base
    expected = sizes(teacher, runs.PROMPTS[:4])
    assert list(recorded(tmp_path / "run")[""].values()) == pytest.approx(expected)
