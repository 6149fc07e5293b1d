"""The trainer with output-space losses, alone and beside the representation loss."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model

from oprd.core.objective import OUTPUT_LOSSES
from oprd.core.output.chunked import output_loss
from oprd.core.output.divergence import ReverseKL
from oprd.models import matching, meeting, reader
from oprd.models.heads import lm_head
from oprd.training import update
from tests import tiny
from tests.core.states.one_layer import representation_loss
from tests.training import runs
from tests.training.runs import LORA, largest_difference, trainer, weights

KINDS = tuple(OUTPUT_LOSSES)
ALONE = {"representation_weight": 0.0}
# Parameters that differ from the defaults, and a support of the whole vocabulary.
PARAMETERS = {"topk": {"k": 5, "support": "union"}, "jsd": {"beta": 0.3}}
WHOLE = {"topk": {"output_loss_kwargs": {"k": 260}}}
every_kind = pytest.mark.parametrize("kind", KINDS)


def run(folder, **options):
    made = trainer(folder, **options)
    made.train()
    return made


def logged(folder, key):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def divergence(made):
    """KL(p‖q) over scripted rollouts, as the models of a trainer stand."""
    prompts = [tiny.tokenizer()(prompt)["input_ids"] for prompt in runs.PROMPTS]
    total, count = 0.0, 0.0
    for prompt in prompts:
        response = runs.scripted(prompt)
        ids = torch.tensor([prompt + response])
        rows = slice(len(prompt) - 1, -1)
        with torch.no_grad():
            states = [
                model(ids, output_hidden_states=True).hidden_states[-1][:, rows]
                for model in (made.model, made.teacher_model)
            ]
            heads = [lm_head(model) for model in (made.model, made.teacher_model)]
            mask = torch.ones(1, len(response), dtype=torch.bool)
            loss = output_loss(ReverseKL(), *states, *heads, mask)
        total, count = total + loss.total, count + loss.count
    return (total / count).item()


# --- the loss -------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("reduction", ["sequence", "token"])
def test_the_logged_loss_is_equation_7_over_unpadded_sequences(tmp_path, kind, reduction):
    student, teacher = tiny.model(seed=1), tiny.model(seed=2)
    settings = {"temperature": 0.7, "reduction": reduction}
    loss = OUTPUT_LOSSES[kind](**PARAMETERS.get(kind, {}))
    sums = {"output": [], "representation": []}
    for prompt in runs.PROMPTS[:4]:
        ids = tiny.tokenizer()(prompt)["input_ids"]
        response = runs.scripted(ids)
        both = torch.tensor([ids + response])
        with torch.no_grad():
            states = [
                model(both, output_hidden_states=True).hidden_states[3][:, len(ids) - 1 : -1]
                for model in (student, teacher)
            ]
            heads = [lm_head(model) for model in (student, teacher)]
            mask = torch.ones(1, len(response), dtype=torch.bool)
            window = mask & (torch.arange(len(response)) >= len(response) - 3)
            tokens = torch.tensor([response])
            sums["output"].append(output_loss(loss, *states, *heads, mask, tokens, **settings))
            sums["representation"].append(representation_loss(*states, window, reduction=reduction))
    means = {
        name: sum(part.total for part in parts) / sum(part.count for part in parts)
        for name, parts in sums.items()
    }
    made = run(
        tmp_path,
        student=student,
        teacher=teacher,
        layers="3",
        position_k=3,
        scale="none",
        prompts=runs.PROMPTS[:4],
        output_loss=kind,
        output_weight=0.5,
        representation_weight=10.0,
        output_loss_kwargs=PARAMETERS.get(kind),
        **settings,
    )
    expected = 0.5 * means["output"] + 10 * means["representation"]
    assert made.state.log_history[0]["loss"] == pytest.approx(expected.item(), rel=1e-4)
    for name, mean in means.items():
        assert logged(tmp_path, f"loss/{name}") == [pytest.approx(mean.item(), rel=1e-4)]


@every_kind
def test_a_step_on_an_output_loss_alone_moves_the_student_towards_the_teacher(tmp_path, kind):
    # The support of a random model's 16 likeliest tokens holds little: all tokens do.
    options = {"output_loss": kind, **WHOLE.get(kind, {}), "per_device_train_batch_size": 16}
    made = trainer(tmp_path, **options, **ALONE)
    before = divergence(made)
    made.train()
    assert divergence(made) < before


@every_kind
@pytest.mark.parametrize("layers", ["all", "last", "even", "1"])
@pytest.mark.parametrize("positions", ["all", "last", "first_k", "last_k"])
def test_every_choice_of_layers_positions_and_objective_trains(tmp_path, layers, positions, kind):
    student = tiny.model(seed=1)
    choice = {"layers": layers, "positions": positions, "position_k": 2, "output_loss": kind}
    run(tmp_path, student=student, **choice)
    assert largest_difference(weights(student), weights(tiny.model(seed=1))) > 0
    (output,), (states,) = (
        logged(tmp_path, f"loss/{name}") for name in ("output", "representation")
    )
    assert logged(tmp_path, "loss") == [pytest.approx(output + states, rel=1e-4)]


@pytest.mark.parametrize("tied", [True, False])
def test_the_gradient_reaches_the_head(tmp_path, tied):
    student = tiny.model(seed=1, tie_word_embeddings=tied)
    run(tmp_path, student=student, output_loss="reverse_kl", layers="1", **ALONE)
    before = tiny.model(seed=1, tie_word_embeddings=tied)
    moved = student.lm_head.weight - before.lm_head.weight
    # A softmax over all tokens has a slope at each of them, one that is never read among them.
    assert moved[tiny.PAD].abs().max() > 0
    assert (student.lm_head.weight is student.base_model.embed_tokens.weight) == tied


def test_neither_lm_head_runs_in_an_update(tmp_path):
    student, teacher = tiny.model(seed=1), tiny.model(seed=2)
    calls = []
    for model in (student, teacher):
        model.get_output_embeddings().register_forward_pre_hook(lambda *call: calls.append(call))
    options = {"output_loss": "topk", "diagnostics_steps": 1}
    made = trainer(tmp_path, student=student, teacher=teacher, **options)
    calls.clear()  # of what was tried before
    made.train()
    assert calls == []
    for number, model in enumerate((student, teacher), start=1):
        model(torch.zeros(1, 1, dtype=torch.long))
        assert len(calls) == number, "a call of the head is seen"


def test_without_an_output_loss_no_head_is_read(tmp_path, monkeypatch):
    for module in (matching, meeting, reader, update):
        monkeypatch.setattr(module, "lm_head", None)
    run(tmp_path)
    assert logged(tmp_path, "loss")[0] > 0


def test_the_representation_term_keeps_its_factor_beside_an_output_loss(tmp_path):
    """Its positions are fewer than the response's, and its count is its own."""
    alone = run(tmp_path, student=tiny.model(seed=1), positions="last")
    run(tmp_path, student=tiny.model(seed=1), positions="last", output_loss="sampled")
    expected = alone.state.log_history[0]["loss"]
    assert logged(tmp_path, "loss/representation") == [pytest.approx(expected, rel=1e-4)]


# --- invariance -----------------------------------------------------------------------------------


def step_in_float64(folder, **options):
    student = tiny.model(seed=1).double()
    options = {"output_loss": "topk", "output_loss_kwargs": {"k": 8}, "position_k": 3, **options}
    made = run(folder, student=student, teacher=tiny.model(seed=2).double(), **options)
    return weights(student), made.state.log_history[0]["loss"]


@pytest.mark.parametrize("reduction", ["sequence", "token"])
@pytest.mark.parametrize(
    "other",
    [
        pytest.param(
            {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}, id="2×4"
        ),
        pytest.param(
            {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}, id="1×8"
        ),
        pytest.param({"pad_to_multiple_of": 64}, id="padding"),
        pytest.param({"gradient_checkpointing": True}, id="checkpointing"),
    ],
)
def test_an_output_loss_takes_the_same_step_however_the_batch_is_laid_out(
    tmp_path, reduction, other
):
    options = {"per_device_train_batch_size": 8, "reduction": reduction}
    whole, loss = step_in_float64(tmp_path, **options)
    split, split_loss = step_in_float64(tmp_path, **{**options, **other})
    assert largest_difference(whole, split) < 1e-6
    assert split_loss == pytest.approx(loss, rel=1e-5)


@every_kind
def test_an_empty_rollout_counts_for_nothing(tmp_path, kind):
    prompts = runs.PROMPTS[:4]
    empty = tuple(tiny.tokenizer()(prompts[0])["input_ids"])

    def rollout(ids):
        return [] if tuple(ids) == empty else runs.scripted(ids)

    options = {"output_loss": kind, "output_loss_kwargs": PARAMETERS.get(kind), **ALONE}
    with_empty, loss = step_in_float64(tmp_path, rollout=rollout, prompts=prompts, **options)
    without, expected = step_in_float64(
        tmp_path, prompts=prompts[1:], per_device_train_batch_size=3, **options
    )
    assert largest_difference(with_empty, without) < 1e-6
    assert loss == pytest.approx(expected, rel=1e-5)


def test_rollouts_that_are_all_empty_give_a_zero_loss_and_no_step(tmp_path):
    student = tiny.model(seed=1)
    options = {"output_loss": "jsd", "diagnostics_steps": 1}
    made = run(tmp_path, student=student, rollout=lambda ids: [], **options)
    assert made.state.log_history[0]["loss"] == 0
    assert not logged(tmp_path, "diagnostics/reverse_kl")
    assert largest_difference(weights(student), weights(tiny.model(seed=1))) == 0


# --- pairs of models ------------------------------------------------------------------------------


@every_kind
def test_models_of_another_width_and_depth_meet_in_their_outputs(tmp_path, kind):
    student = tiny.model(seed=1)
    teacher = tiny.model("qwen2", seed=2, hidden_size=64, num_hidden_layers=2)
    options = {"output_loss": kind, "diagnostics_steps": 1}
    run(tmp_path, student=student, teacher=teacher, **options, **ALONE)
    assert largest_difference(weights(student), weights(tiny.model(seed=1))) > 0
    assert not logged(tmp_path, "rep_cosine")
    assert not logged(tmp_path, "diagnostics/rep_cosine")
    assert logged(tmp_path, "diagnostics/reverse_kl")


def test_another_width_is_refused_where_states_are_compared(tmp_path):
    with pytest.raises(ValueError, match=r"32 wide.*teacher's 64.*representation_weight=0"):
        trainer(tmp_path, teacher=tiny.model(hidden_size=64), output_loss="topk")


@every_kind
@pytest.mark.parametrize("longer", ["student", "teacher"])
def test_padding_rows_of_a_longer_vocabulary_do_not_count(tmp_path, kind, longer):
    seeds = {"student": 1, "teacher": 2}
    equal, padded = ({side: tiny.model(seed=seeds[side]) for side in seeds} for _ in range(2))
    padded[longer] = tiny.model(seed=3, vocab_size=300)
    for name, weight in padded[longer].state_dict().items():
        own = equal[longer].state_dict()[name]
        weight[: len(own)] = own
    options = {"output_loss": kind, **WHOLE.get(kind, {}), **ALONE}
    expected = run(tmp_path, **equal, **options).state.log_history[0]["loss"]
    loss = run(tmp_path, **padded, **options).state.log_history[0]["loss"]
    assert loss == pytest.approx(expected, rel=1e-5)
    assert (
        largest_difference(
            *({name: w[:260] for name, w in weights(m["student"]).items()} for m in (equal, padded))
        )
        < 1e-6
    )


def test_unequal_vocabularies_without_a_teachers_tokenizer_are_refused_with_both_sizes(tmp_path):
    from datasets import Dataset

    from oprd import OPRDTrainer

    def make(**options):
        return OPRDTrainer(
            tiny.model(seed=1),
            tiny.model(seed=2, vocab_size=300),
            runs.settings(tmp_path, **options),
            Dataset.from_dict({"prompt": runs.PROMPTS}),
            processing_class=tiny.tokenizer(),
        )

    with pytest.raises(ValueError, match=r"260 tokens and the teacher's 300.*teacher_processing"):
        make(output_loss="reverse_kl")
    make()


def test_a_k_above_the_vocabulary_is_refused_with_both_numbers(tmp_path):
    with pytest.raises(ValueError, match=r"k must be between 1 and .* 260 tokens, got 261"):
        trainer(tmp_path, output_loss="topk", output_loss_kwargs={"k": 261})


def test_a_head_that_cannot_be_read_is_refused_at_construction(tmp_path):
    teacher = tiny.model(seed=2)
    teacher.lm_head = torch.nn.Sequential(teacher.lm_head)
    with pytest.raises(ValueError, match="LM head of LlamaForCausalLM cannot be read"):
        trainer(tmp_path, teacher=teacher, output_loss="topk")
    trainer(tmp_path, teacher=teacher)


@pytest.mark.parametrize("head", [[], ["lm_head"]])
def test_an_adapter_trains_on_an_output_loss(tmp_path, head):
    lora = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], modules_to_save=head or None)
    made = trainer(
        tmp_path,
        student=tiny.model(seed=1, tie_word_embeddings=False),
        peft_config=lora,
        output_loss="reverse_kl",
        **ALONE,
    )
    before = weights(made.model)
    made.train()
    moved = {n for n, w in weights(made.model).items() if not torch.equal(w, before[n])}
    assert moved
    assert all("lora_" in name or "modules_to_save" in name for name in moved)
    assert any("lm_head" in name for name in moved) == bool(head)


def test_a_shared_base_gives_the_loss_of_a_teacher_of_its_own(tmp_path, places):
    base, adapter = places
    options = {"output_loss": "reverse_kl", "diagnostics_steps": 1, **ALONE}
    shared = run(tmp_path, student=base, teacher=adapter, peft_config=LoraConfig(**LORA), **options)
    merged = run(tmp_path, student=tiny.model(seed=1), teacher=adapter, **options)
    assert (shared.shares_base, merged.shares_base) == (True, False)
    loss = shared.state.log_history[0]["loss"]
    assert loss > 0
    assert merged.state.log_history[0]["loss"] == pytest.approx(loss, rel=1e-4)


def test_a_teacher_adapter_on_a_shared_head_is_refused(tmp_path, places):
    base, _ = places
    wrapped = get_peft_model(tiny.model(seed=1), LoraConfig(target_modules=["q_proj", "lm_head"]))
    wrapped.peft_config["default"].base_model_name_or_path = base
    wrapped.save_pretrained(tmp_path / "on_head", save_embedding_layers=False)
    models = {"student": base, "teacher": str(tmp_path / "on_head")}
    with pytest.raises(ValueError, match=r"carries an adapter.*merge the adapter"):
        trainer(tmp_path, **models, peft_config=LoraConfig(**LORA), output_loss="topk")
    # A base of its own takes it in.
    run(tmp_path, **{**models, "student": tiny.model(seed=1)}, output_loss="topk")


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_last_states_that_are_not_finite_stop_the_run_before_the_step(tmp_path, side):
    models = {"student": tiny.model(seed=1), "teacher": tiny.model(seed=2)}
    models[side].base_model.norm.weight.data[0] = float("nan")
    before = weights(models["student"])
    with pytest.raises(FloatingPointError, match=f"before the update of step 1: {side} layer 3"):
        run(tmp_path, **models, output_loss="topk", **ALONE)
    after = weights(models["student"])
    assert all(torch.equal(before[n].nan_to_num(), after[n].nan_to_num()) for n in before)


def test_a_teachers_head_that_is_not_finite_stops_the_run_before_the_step(tmp_path):
    student, teacher = tiny.model(seed=1), tiny.model(seed=2, tie_word_embeddings=False)
    teacher.lm_head.weight.data[7] = float("nan")
    with pytest.raises(
        FloatingPointError, match=r"a loss that is not finite before .* step 1: loss/output"
    ):
        run(tmp_path, student=student, teacher=teacher, output_loss="reverse_kl")
    assert largest_difference(weights(student), weights(tiny.model(seed=1))) == 0


# --- diagnostics ----------------------------------------------------------------------------------

DIAGNOSTICS = {
    f"diagnostics/{name}"
    for name in (
        "top16_overlap",
        "student_entropy",
        "teacher_entropy",
        "reverse_kl",
        "policy_gradient_loss",
        "rep_cosine",
    )
}


def diagnostics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: {k for k in line if k.startswith("diagnostics/")} for line in lines[:-1]}


def test_diagnostics_are_off_by_default_and_on_at_chosen_steps(tmp_path):
    run(tmp_path, max_steps=2)
    assert set().union(*diagnostics(tmp_path).values()) == set()
    run(tmp_path, max_steps=4, diagnostics_steps=2)
    assert diagnostics(tmp_path) == {1: set(), 2: DIAGNOSTICS, 3: set(), 4: DIAGNOSTICS}


def test_diagnostics_leave_the_step_as_it_is(tmp_path):
    plain, measured = tiny.model(seed=1), tiny.model(seed=1)
    run(tmp_path, student=plain)
    run(tmp_path, student=measured, diagnostics_steps=1)
    assert largest_difference(weights(plain), weights(measured)) == 0


def test_the_divergence_that_is_measured_is_the_losses(tmp_path):
    options = {"output_loss": "reverse_kl", "reduction": "token", "temperature": 0.5}
    made = run(tmp_path, gradient_accumulation_steps=2, diagnostics_steps=1, **options, **ALONE)
    loss = made.state.log_history[0]["loss"]
    assert logged(tmp_path, "diagnostics/reverse_kl") == [pytest.approx(loss, rel=1e-4)]
    (overlap,) = logged(tmp_path, "diagnostics/top16_overlap")
    assert 0 <= overlap <= 1


def test_cosines_of_the_chosen_layers_are_measured_without_a_term_of_them(tmp_path):
    run(tmp_path, student=tiny.model(seed=1), layers="2,3")
    expected = logged(tmp_path, "rep_cosine/layer_02")
    student = tiny.model(seed=1)
    options = {"output_loss": "topk", "diagnostics_steps": 1, "layers": "2,3", **ALONE}
    run(tmp_path, student=student, **options)
    assert logged(tmp_path, "rep_cosine/layer_02") == pytest.approx(expected)
    other = tiny.model(seed=1)
    run(tmp_path, student=other, **{**options, "diagnostics_steps": 0})
    assert not logged(tmp_path, "rep_cosine")
    assert largest_difference(weights(student), weights(other)) == 0


def test_evaluation_measures_diagnostics_too(tmp_path):
    made = run(
        tmp_path,
        eval_prompts=runs.PROMPTS[:4],
        eval_strategy="steps",
        eval_steps=1,
        per_device_eval_batch_size=4,
        diagnostics_steps=5,
        output_loss="sampled",
    )
    evaluated = next(line for line in made.state.log_history if "eval_loss" in line)
    assert {f"eval_{name}" for name in DIAGNOSTICS} <= set(evaluated)
    assert "diagnostics/reverse_kl" not in made.state.log_history[0]
