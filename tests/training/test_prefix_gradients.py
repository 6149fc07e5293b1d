"""The trainer with `prefix_gradients=False`."""

import json

import pytest
import torch
from peft import LoraConfig

from tests import tiny
from tests.training import runs
from tests.training.runs import largest_difference, trainer, weights

CONSTANT = {"prefix_gradients": False}
WINDOW = {"position_k": 3}


def step(folder, architecture="llama", **options):
    """Weights and loss after one step of a float64 student, with what made them."""
    student = tiny.model(architecture, seed=1).double()
    teacher = tiny.model(architecture, seed=2).double()
    made = trainer(folder, student=student, teacher=teacher, **options)
    made.train()
    return weights(student), made.state.log_history[0]["loss"]


def encode(text):
    return tiny.tokenizer()(text)["input_ids"]


def moved_tokens(folder, **options):
    """Which rows of a student's embedding a step moves."""
    student = tiny.model(seed=1)
    before = student.get_input_embeddings().weight.detach().clone()
    trainer(folder, student=student, **options, **CONSTANT).train()
    moved = (student.get_input_embeddings().weight != before).any(dim=1)
    return set(moved.nonzero().flatten().tolist())


def logged(folder, key):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_the_loss_is_the_exact_one_and_the_step_is_not(tmp_path, architecture, checkpointing):
    options = {"architecture": architecture, "gradient_checkpointing": checkpointing, **WINDOW}
    exact, loss = step(tmp_path, **options)
    constant, same_loss = step(tmp_path, **options, **CONSTANT)
    assert same_loss == pytest.approx(loss, rel=1e-5)
    assert largest_difference(exact, constant) > 1e-6


@pytest.mark.parametrize(
    "terms",
    [
        {"output_loss": "reverse_kl"},
        {"output_loss": "topk", "representation_weight": 0.0},
        {"positions": "first_k"},
        {"positions": "last"},
        {"positions": "all", "layers": "2"},
    ],
)
def test_every_kind_of_term_has_its_exact_loss(tmp_path, terms):
    _, loss = step(tmp_path, **WINDOW, **terms)
    _, same_loss = step(tmp_path, **WINDOW, **terms, **CONSTANT)
    assert same_loss == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize(
    "layout",
    [
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
        {"per_device_train_batch_size": 8, "pad_to_multiple_of": 64},
        {"per_device_train_batch_size": 8, "gradient_checkpointing": True},
        {"per_device_train_batch_size": 8, "diagnostics_steps": 1},
    ],
    ids=["split", "one by one", "padded", "checkpointed", "diagnosed"],
)
@pytest.mark.parametrize("terms", [WINDOW, {"positions": "first_k"} | WINDOW, {"positions": "all"}])
def test_the_step_is_the_same_however_it_is_taken(tmp_path, layout, terms):
    expected, loss = step(tmp_path, per_device_train_batch_size=8, **terms, **CONSTANT)
    actual, same_loss = step(tmp_path, **layout, **terms, **CONSTANT)
    assert largest_difference(expected, actual) < 1e-9
    assert same_loss == pytest.approx(loss, rel=1e-5)


def test_the_order_of_rows_does_not_matter(tmp_path):
    options = {"shuffle_dataset": False, **WINDOW, **CONSTANT}
    first, _ = step(tmp_path, prompts=runs.PROMPTS[:4], **options)
    second, _ = step(tmp_path, prompts=runs.PROMPTS[3::-1], **options)
    assert largest_difference(first, second) < 1e-9


@pytest.mark.parametrize("terms", [{"positions": "all"}, {"output_loss": "jsd"}])
def test_tokens_of_the_prompt_alone_get_no_gradient(tmp_path, terms):
    moved = moved_tokens(tmp_path, rollout=lambda _: [200, 201, 202], **terms)
    # The last prompt token's state predicts the first token of the response.
    assert moved == {*encode("?"), 200, 201}


def test_a_response_shorter_than_its_window_keeps_the_exact_gradient(tmp_path):
    exact, _ = step(tmp_path)
    constant, _ = step(tmp_path, **CONSTANT)
    assert largest_difference(exact, constant) < 1e-9


def test_only_responses_longer_than_the_window_are_cut(tmp_path):
    prompts = ["1 + 2?", "3 * 4?"]

    def rollout(ids):
        return [200] * 9 if ids == encode(prompts[0]) else [210, 211]

    moved = moved_tokens(
        tmp_path, prompts=prompts, rollout=rollout, per_device_train_batch_size=2, position_k=4
    )
    assert moved == {*encode(prompts[1]), 200, 210}


def test_diagnostics_cover_the_whole_response(tmp_path):
    options = {"diagnostics_steps": 1, **WINDOW}
    step(tmp_path / "exact", **options)
    step(tmp_path / "constant", **options, **CONSTANT)
    for name in ("reverse_kl", "student_entropy", "rep_cosine", "top16_overlap"):
        (exact,), (constant,) = (
            logged(tmp_path / run, f"diagnostics/{name}") for run in ("exact", "constant")
        )
        assert constant == pytest.approx(exact, rel=1e-5)


def test_drift_is_measured_over_the_whole_response(tmp_path):
    drifts = []
    for terms in (CONSTANT, {}):
        # Too small a step for the different gradients to show.
        options = {"updates_per_rollout": 2, "max_steps": 2, "learning_rate": 1e-3, **WINDOW}
        step(tmp_path / str(len(drifts)), **options, **terms)
        drifts.append(logged(tmp_path / str(len(drifts)), "drift_kl"))
    constant, exact = drifts
    assert constant and constant == pytest.approx(exact, rel=0.5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_adapter_trains_on_the_base_that_it_shares_with_its_teacher(
    tmp_path, places, checkpointing
):
    base, adapter = places
    losses = []
    for options in ({}, CONSTANT):
        made = trainer(
            tmp_path,
            student=base,
            teacher=adapter,
            peft_config=LoraConfig(target_modules="all-linear", r=2),
            gradient_checkpointing=checkpointing,
            **WINDOW,
            **options,
        )
        before = weights(made.model)
        made.train()
        losses.append(made.state.log_history[0]["loss"])
        after = weights(made.model)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved and all("lora_B" in n and "oprd_teacher" not in n for n in moved)
    assert made.shares_base
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_bf16_leaves_no_weight_without_gradient(tmp_path):
    student = tiny.model(seed=1)
    before = weights(student)
    trainer(tmp_path, student=student, bf16=True, **WINDOW, **CONSTANT).train()
    after = weights(student)
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still <= {"lm_head.weight"}


def test_rollouts_that_are_all_empty_give_a_zero_loss_and_no_step(tmp_path):
    student = tiny.model(seed=1)
    before = weights(student)
    made = trainer(tmp_path, student=student, rollout=lambda _: [], **WINDOW, **CONSTANT)
    made.train()
    assert made.state.log_history[0]["loss"] == 0
    assert largest_difference(before, weights(student)) == 0


def test_an_empty_rollout_counts_for_nothing(tmp_path):
    prompts = runs.PROMPTS[:4]
    empty = encode(prompts[0])

    def rollout(ids):
        return [] if ids == empty else runs.scripted(ids)

    options = {"shuffle_dataset": False, **WINDOW, **CONSTANT}
    with_it, _ = step(tmp_path, prompts=prompts, rollout=rollout, **options)
    batch = {"per_device_train_batch_size": 3}
    without, _ = step(tmp_path, prompts=prompts[1:], **batch, **options)
    assert largest_difference(with_it, without) < 1e-9


def test_evaluation_gives_the_exact_loss(tmp_path):
    losses = []
    for options in ({}, CONSTANT):
        made = trainer(tmp_path, eval_prompts=runs.PROMPTS[:4], **WINDOW, **options)
        losses.append(made.evaluate()["eval_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_a_model_that_cannot_be_read_in_two_parts_is_refused_at_construction(tmp_path):
    ropes = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    student = tiny.model(seed=1, rope_parameters=ropes)
    trainer(tmp_path, student=student)
    with pytest.raises(ValueError, match="LlamaModel cannot read its prefix"):
        trainer(tmp_path, student=student, **CONSTANT)
