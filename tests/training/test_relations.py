"""The trainer with a loss on relations between states, for which two models may have any widths."""

import json

import pytest
import torch

from oprd.core.objective import STATE_LOSSES
from oprd.core.states.gram import GramDistance
from tests import tiny
from tests.reference.gram import gram_loss
from tests.training import runs
from tests.training.runs import largest_difference, trainer, weights

WIDER = {"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 5}
GRAM = {"state_loss": "gram", "prompts": runs.PROMPTS[:4], "learning_rate": 0.3}


def run(folder, dtype=torch.float32, **options):
    student = tiny.model(seed=1).to(dtype)
    teacher = options.pop("teacher", None) or tiny.model(seed=2, **WIDER)
    made = trainer(folder, student=student, teacher=teacher.to(dtype), **{**GRAM, **options})
    made.train()
    return made


def logged(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def names(folder):
    return {name for line in logged(folder) for name in line}


@pytest.mark.parametrize("reduction", ["sequence", "token"])
def test_the_logged_loss_is_the_definition_over_unpadded_sequences(tmp_path, reduction):
    student, teacher = tiny.model(seed=1), tiny.model(seed=2, **WIDER)
    by_layer = []
    for pair in ((2, 3), (3, 5)):
        total, count = torch.zeros(()), 0
        for prompt in runs.PROMPTS[:4]:
            ids = tiny.tokenizer()(prompt)["input_ids"]
            response = runs.scripted(ids)
            states = [
                model(torch.tensor([ids + response]), output_hidden_states=True)
                .hidden_states[layer][:, len(ids) - 1 : -1]
                .detach()
                for model, layer in zip((student, teacher), pair, strict=True)
            ]
            mask = torch.tensor([[t >= len(response) - 3 for t in range(len(response))]])
            one, n = gram_loss(*states, mask, reduction)
            total, count = total + one, count + n
        by_layer.append(total / count)
    made = run(tmp_path, layers="2,3", position_k=3, reduction=reduction)
    assert made.state.log_history[0]["loss"] == pytest.approx(sum(by_layer).item() / 2, rel=1e-4)


def test_models_of_unequal_widths_train_without_a_cosine_and_without_a_warning(tmp_path, caplog):
    made = run(tmp_path, max_steps=12)
    losses = [line["loss"] for line in logged(tmp_path) if "loss" in line]
    assert losses[-1] < 0.2 * losses[0]
    assert largest_difference(weights(made.student), weights(tiny.model(seed=1))) > 0
    assert not [name for name in names(tmp_path) if "rep_cosine" in name]
    assert "on the first batch" not in caplog.text


def test_unrelated_models_of_one_width_have_a_cosine_that_warns_of_nothing(tmp_path, caplog):
    run(tmp_path, teacher=tiny.model(seed=2))
    assert logged(tmp_path)[0]["rep_cosine"] < 0.25
    assert "on the first batch" not in caplog.text


@pytest.mark.parametrize("output", [{}, {"output_loss": "reverse_kl"}])
@pytest.mark.parametrize(("micro_batch", "accumulation"), [(2, 2), (1, 4)])
def test_micro_batches_take_the_same_step_with_diagnostics_and_in_evaluation(
    tmp_path, output, micro_batch, accumulation
):
    options = {
        "dtype": torch.float64,
        "diagnostics_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "eval_prompts": runs.PROMPTS[4:8],
        **output,
    }
    whole = run(tmp_path / "whole", **options)
    split = run(
        tmp_path / "split",
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
        **options,
    )
    assert largest_difference(weights(whole.student), weights(split.student)) < 1e-6
    for folder in (tmp_path / "whole", tmp_path / "split"):
        assert {"diagnostics/reverse_kl", "eval_diagnostics/reverse_kl"} <= names(folder)
        assert ("loss/representation" in names(folder)) == bool(output)
        assert not [name for name in names(folder) if "rep_cosine" in name]


def test_padding_and_the_order_of_rows_do_not_matter(tmp_path):
    options = {"dtype": torch.float64, "shuffle_dataset": False}
    expected = weights(run(tmp_path / "1", **options).student)
    padded = run(tmp_path / "2", pad_to_multiple_of=64, **options).student
    turned = run(tmp_path / "3", **{**options, "prompts": runs.PROMPTS[3::-1]}).student
    for student in (padded, turned):
        assert largest_difference(weights(student), expected) < 1e-6


def test_under_autocast_the_loss_is_that_of_the_rounded_states(tmp_path):
    plain = run(tmp_path / "plain").state.log_history[0]["loss"]
    autocast = run(tmp_path / "autocast", bf16=True).state.log_history[0]["loss"]
    assert autocast == pytest.approx(plain, rel=0.02)
    assert autocast != plain


def test_a_stage_without_the_term_compares_nothing_where_widths_differ(tmp_path, monkeypatch):
    asked = []

    class Counting(GramDistance):
        def __call__(self, *rows):
            asked.append(rows)
            return super().__call__(*rows)

    monkeypatch.setitem(STATE_LOSSES, "gram", Counting)
    output = {"steps": 1, "representation_weight": 0, "output_loss": "reverse_kl"}
    run(tmp_path, max_steps=-1, diagnostics_steps=1, stages=[output])
    assert not asked
    run(tmp_path, max_steps=-1, diagnostics_steps=1, stages=[output, {"steps": 1}])
    assert len(asked) == 3, "a comparison of each layer is seen"
