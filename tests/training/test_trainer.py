import copy
import json
import math

import pandas as pd
import pytest
import torch
from huggingface_hub import constants
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from oprd.models.batch import MicroBatch
from oprd.models.reading import predicting_rows
from tests import tiny
from tests.reference import representation as reference
from tests.training import runs
from tests.training.runs import LORA, largest_difference, trainer, weights


def logged(folder, key):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def run(folder, **options):
    made = trainer(folder, **options)
    made.train()
    return made


# --- the loss -------------------------------------------------------------------------------------


def test_by_default_the_loss_is_ten_times_equation_14(tmp_path):
    by_default = {"scale": None, "representation_weight": None}
    found = run(tmp_path / "default", **by_default).state.log_history[0]["loss"]
    unit = run(tmp_path / "unit", scale="unit", representation_weight=1.0)
    assert found == pytest.approx(10 * unit.state.log_history[0]["loss"], rel=1e-5)


@pytest.mark.parametrize("reduction", ["sequence", "token"])
@pytest.mark.parametrize("scale", ["none", "unit"])
def test_the_logged_loss_is_equation_6_or_14_over_unpadded_sequences(tmp_path, scale, reduction):
    student, teacher = tiny.model(seed=1), tiny.model(seed=2)
    before = tiny.model(seed=1)
    options = {"positions": "last_k", "position_k": 3, "layers": "2,3"}
    made = run(
        tmp_path,
        student=student,
        teacher=teacher,
        scale=scale,
        representation_weight=1.0,
        reduction=reduction,
        prompts=runs.PROMPTS[:4],
        **options,
    )
    layer_losses = []
    for layer in (2, 3):
        total, count = torch.zeros(()), 0
        for prompt in runs.PROMPTS[:4]:
            ids = tiny.tokenizer()(prompt)["input_ids"]
            response = runs.scripted(ids)
            both = torch.tensor([ids + response])
            states = [
                model(both, output_hidden_states=True).hidden_states[layer][:, len(ids) - 1 : -1]
                for model in (before, teacher)
            ]
            mask = torch.tensor([[t >= len(response) - 3 for t in range(len(response))]])
            one, n = reference.representation_loss(*states, mask, scale == "unit", reduction)
            total, count = total + one, count + n
        layer_losses.append(total / count)
    expected = torch.stack(layer_losses).mean().item()
    assert made.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-5)


def test_predicting_rows_stand_one_column_before_their_tokens():
    positions = torch.tensor([[True, False, True], [False, False, True]])
    expected = torch.zeros(2, 7, dtype=torch.bool)
    expected[0, [3, 5]] = True
    expected[1, 5] = True
    assert torch.equal(predicting_rows(positions, 4), expected)


def test_a_step_moves_the_student_towards_the_teacher(tmp_path):
    run(tmp_path, max_steps=12, rollout=None)
    cosines = logged(tmp_path, "rep_cosine")
    losses = logged(tmp_path, "loss")
    assert losses[-1] < losses[0]
    assert cosines[-1] > cosines[0]


def test_neither_lm_head_runs_in_an_update(tmp_path):
    student, teacher = tiny.model(seed=1), tiny.model(seed=2)

    def refuse(*_):
        raise AssertionError("the LM head was called")

    updates = trainer(tmp_path / "scripted", student=student, teacher=teacher)
    rollouts = trainer(tmp_path / "own", student=student, teacher=teacher, rollout=None)
    for model in (student, teacher):
        model.get_output_embeddings().register_forward_pre_hook(refuse)
    updates.train()
    with pytest.raises(AssertionError, match="LM head was called"):
        rollouts.train()


def test_a_student_equal_to_its_teacher_has_zero_loss_and_does_not_move(tmp_path):
    student = tiny.model(seed=1)
    made = run(tmp_path, student=student, teacher=tiny.model(seed=1))
    assert made.state.log_history[0]["loss"] == 0
    assert largest_difference(weights(student), weights(tiny.model(seed=1))) == 0


@pytest.mark.parametrize("layers", ["all", "last", "even", "every:2", "1,2"])
@pytest.mark.parametrize("positions", ["all", "last", "first_k", "last_k"])
def test_every_choice_of_layers_and_positions_trains(tmp_path, layers, positions):
    student = tiny.model(seed=1)
    run(tmp_path, student=student, layers=layers, positions=positions, position_k=2)
    assert largest_difference(weights(student), weights(tiny.model(seed=1))) > 0


def test_models_of_different_depth_meet_at_the_same_relative_depth(tmp_path):
    made = run(tmp_path, teacher=tiny.model(seed=2, num_hidden_layers=5))
    assert [tuple(pair) for pair in made.pairs] == [(1, 1), (2, 3), (3, 5)]


# --- invariance -----------------------------------------------------------------------------------


def step_in_float64(folder, architecture="llama", **options):
    student = tiny.model(architecture, seed=1).double()
    made = run(
        folder, student=student, teacher=tiny.model(architecture, seed=2).double(), **options
    )
    return weights(student), made.state.log_history[0]["loss"]


@pytest.mark.parametrize("reduction", ["sequence", "token"])
@pytest.mark.parametrize(("micro_batch", "accumulation"), [(4, 2), (2, 4), (1, 8)])
def test_any_split_into_micro_batches_takes_the_same_step(
    tmp_path, micro_batch, accumulation, reduction
):
    options = {"reduction": reduction, "position_k": 3}
    whole, loss = step_in_float64(tmp_path, per_device_train_batch_size=8, **options)
    split, split_loss = step_in_float64(
        tmp_path,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
        **options,
    )
    assert largest_difference(whole, split) < 1e-6
    assert split_loss == pytest.approx(loss, rel=1e-5)


def test_the_order_of_rows_does_not_matter(tmp_path):
    prompts = runs.PROMPTS[:4]
    first, _ = step_in_float64(tmp_path, prompts=prompts, shuffle_dataset=False)
    second, _ = step_in_float64(tmp_path, prompts=prompts[::-1], shuffle_dataset=False)
    assert largest_difference(first, second) < 1e-6


@pytest.mark.parametrize("architecture", ["gpt2", "opt", "llama", "qwen2", "qwen3", "gpt_neox"])
def test_left_padding_does_not_matter(tmp_path, architecture):
    options = {"architecture": architecture, "prompts": runs.PROMPTS[:4]}
    tight, loss = step_in_float64(tmp_path, **options)
    padded, padded_loss = step_in_float64(tmp_path, pad_to_multiple_of=64, **options)
    assert largest_difference(tight, padded) < 1e-6
    assert padded_loss == pytest.approx(loss, rel=1e-5)


def test_gradient_checkpointing_takes_the_same_step(tmp_path):
    plain, _ = step_in_float64(tmp_path)
    checkpointed, _ = step_in_float64(tmp_path, gradient_checkpointing=True)
    assert largest_difference(plain, checkpointed) < 1e-9


def test_the_same_seed_gives_the_same_run(tmp_path):
    first, second = tiny.model(seed=1), tiny.model(seed=1)
    for student in (first, second):
        run(tmp_path, student=student, rollout=None, max_steps=3)
    assert largest_difference(weights(first), weights(second)) == 0


# --- teachers -------------------------------------------------------------------------------------


def states_of_everything(made, ids, mask):
    """The teacher's states where every token but the first is a supervised response."""
    response, count = mask[:, 1:].bool(), torch.ones(())
    batch = MicroBatch.of_rollouts(
        ids, mask, response, response, response_count=count, position_count=count
    )
    return made._teacher.read(made.model, batch, states=True, last=False).reading.states


def test_one_base_serves_a_student_adapter_and_a_teacher_adapter(tmp_path, places):
    base, adapter = places
    made = trainer(
        tmp_path, student=base, teacher=adapter, peft_config=LoraConfig(**LORA), max_steps=3
    )
    assert made.shares_base
    assert made.teacher_model is None
    before = weights(made.model)
    flags = {name: p.requires_grad for name, p in made.model.named_parameters()}
    assert all(flag == ("lora_" in n and "oprd_teacher" not in n) for n, flag in flags.items())
    made.train()
    after = weights(made.model)
    assert {name: p.requires_grad for name, p in made.model.named_parameters()} == flags
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(flags[name] for name in moved)
    assert made.model.active_adapter == "default"


def test_a_shared_base_gives_the_loss_of_a_teacher_of_its_own(tmp_path, places):
    base, adapter = places
    shared = run(tmp_path, student=base, teacher=adapter, peft_config=LoraConfig(**LORA))
    merged = run(tmp_path, student=tiny.model(seed=1), teacher=adapter)
    assert not merged.shares_base
    assert shared.state.log_history[0]["loss"] > 0
    assert merged.state.log_history[0]["loss"] == pytest.approx(
        shared.state.log_history[0]["loss"], rel=1e-5
    )


def test_a_saved_student_holds_no_teacher(tmp_path, places):
    base, adapter = places
    made = run(tmp_path / "run", student=base, teacher=adapter, peft_config=LoraConfig(**LORA))
    made.save_model(str(tmp_path / "saved"))
    files = {path.name for path in (tmp_path / "saved").iterdir()}
    assert "adapter_model.safetensors" in files
    assert "oprd_teacher" not in files
    saved = load_file(tmp_path / "saved" / "adapter_model.safetensors")
    assert saved and not [name for name in saved if "oprd_teacher" in name]
    assert "oprd_teacher" in made.model.peft_config


@pytest.mark.parametrize("kind", ["model", "adapter", "shared"])
def test_the_teacher_does_not_change_over_training(tmp_path, places, kind):
    base, adapter = places
    student = base if kind == "shared" else tiny.model(seed=1)
    made = trainer(
        tmp_path,
        student=student,
        teacher=tiny.model(seed=2) if kind == "model" else adapter,
        peft_config=LoraConfig(**LORA) if kind == "shared" else None,
        max_steps=3,
        learning_rate=1.0,
    )
    ids, mask = tiny.batch((7, 5))

    before = states_of_everything(made, ids, mask)
    made.train()
    after = states_of_everything(made, ids, mask)
    assert all(torch.equal(before[layer], after[layer]) for layer in (1, 2, 3))


def test_a_teacher_adapter_can_be_given_another_base(tmp_path, places):
    base, adapter = places
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "nobody/nowhere"
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    made = trainer(
        tmp_path,
        student=base,
        teacher=adapter,
        peft_config=LoraConfig(**LORA),
        teacher_base_model_name_or_path=base,
    )
    assert made.shares_base


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param({"bias": "lora_only"}, id="biases"),
        pytest.param({"modules_to_save": ["lm_head"]}, id="whole modules"),
    ],
)
def test_a_teacher_adapter_that_alters_the_base_gets_a_base_of_its_own(tmp_path, places, kind):
    base, _ = places
    wrapped = get_peft_model(tiny.model(seed=1), LoraConfig(**LORA, **kind))
    wrapped.peft_config["default"].base_model_name_or_path = base
    wrapped.save_pretrained(tmp_path / "altering")
    options = {"teacher": str(tmp_path / "altering"), "peft_config": LoraConfig(**LORA)}
    made = trainer(tmp_path, student=base, **options)
    assert not made.shares_base
    assert made.teacher_model is not None


def test_bf16_reaches_the_blocks_of_both_models(tmp_path):
    student, teacher = tiny.model(seed=1), tiny.model(seed=2)
    seen = []
    for model in (student, teacher):
        model.base_model.layers[0].mlp.register_forward_hook(
            lambda module, args, output: seen.append(output.dtype)
        )
    made = trainer(tmp_path, student=student, teacher=teacher, bf16=True)
    seen.clear()  # of what was tried before
    made.train()
    assert set(seen) == {torch.bfloat16}


def test_dropout_never_reaches_the_teacher(tmp_path, places):
    base, adapter = places
    made = trainer(
        tmp_path, student=base, teacher=adapter, peft_config=LoraConfig(**LORA, lora_dropout=0.5)
    )
    made.model.train()
    ids, mask = tiny.batch((7, 5))
    first, second = (states_of_everything(made, ids, mask) for _ in range(2))
    assert all(torch.equal(first[layer], second[layer]) for layer in (1, 2, 3))
    assert made.model.training


# --- rollouts -------------------------------------------------------------------------------------


def test_each_prompt_is_written_as_often_as_asked(tmp_path):
    seen = []

    def rollout(ids):
        seen.append(tuple(ids))
        return runs.scripted(ids)

    run(tmp_path, rollout=rollout, rollouts_per_prompt=2, max_steps=2)
    assert len(seen) == 8
    assert len(set(seen)) == 4
    assert all(seen.count(prompt) == 2 for prompt in seen)


def test_an_empty_rollout_counts_for_nothing(tmp_path):
    prompts = runs.PROMPTS[:4]
    empty = tuple(tiny.tokenizer()(prompts[0])["input_ids"])

    def rollout(ids):
        return [] if tuple(ids) == empty else runs.scripted(ids)

    with_empty, loss = step_in_float64(tmp_path, rollout=rollout, prompts=prompts)
    assert logged(tmp_path, "completions/empty_ratio") == [0.25]
    without, expected = step_in_float64(
        tmp_path, prompts=prompts[1:], per_device_train_batch_size=3
    )
    assert largest_difference(with_empty, without) < 1e-6
    assert loss == pytest.approx(expected, rel=1e-5)


def test_rollouts_that_are_all_empty_give_a_zero_loss_and_no_step(tmp_path):
    student = tiny.model(seed=1)
    made = run(tmp_path, student=student, rollout=lambda ids: [])
    assert made.state.log_history[0]["loss"] == 0
    assert logged(tmp_path, "completions/unsupervised_ratio") == [1.0]
    assert not logged(tmp_path, "rep_cosine")
    assert largest_difference(weights(student), weights(tiny.model(seed=1))) == 0


def test_a_rollout_of_eos_alone_is_supervised_once(tmp_path):
    run(tmp_path, rollout=lambda ids: [tiny.EOS], positions="all")
    assert logged(tmp_path, "supervised_tokens") == [4]


@pytest.mark.parametrize("padding", [None, "<eos>"])
def test_an_eos_stays_supervised_where_padding_is_none_or_the_eos_itself(tmp_path, padding):
    tokenizer = copy.deepcopy(tiny.tokenizer())
    tokenizer.pad_token = padding
    made = trainer(
        tmp_path,
        rollout=lambda ids: [65, tiny.EOS, 66][: 1 + len(ids) % 3],
        tokenizer=tokenizer,
        prompts=runs.PROMPTS[:4],
        positions="all",
    )
    made.train()
    lengths = [1 + len(tiny.tokenizer()(prompt)["input_ids"]) % 3 for prompt in runs.PROMPTS[:4]]
    assert logged(tmp_path, "supervised_tokens") == [sum(lengths)]


def test_an_engine_that_loses_rollouts_is_an_error_with_counts(tmp_path):
    made = trainer(tmp_path)
    (engine,) = (c for c in type(made).__mro__ if c.__name__ == "ScriptedEngine")
    engine._generate_single_turn = lambda self, ids, *_: [[65]] * (len(ids) - 1)
    with pytest.raises(RuntimeError, match=r"4 rollouts were asked for and 3 came back"):
        made.train()


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["student", "teacher"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_states_that_are_not_finite_stop_the_run_before_the_step(tmp_path, side, value):
    models = {"student": tiny.model(seed=1), "teacher": tiny.model(seed=2)}
    models[side].base_model.layers[1].mlp.down_proj.weight.data[0, 0] = value
    before = weights(models["student"])
    where = f"before the update of step 1: {side} layer 2, {side} layer 3"
    with pytest.raises(FloatingPointError, match=where):
        run(tmp_path, **models)
    after = weights(models["student"])
    assert all(torch.equal(before[n].nan_to_num(), after[n].nan_to_num()) for n in before)


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step(tmp_path, max_grad_norm):
    student = tiny.model(seed=1)
    student.base_model.embed_tokens.weight.register_hook(lambda grad: grad * math.nan)
    with pytest.raises(FloatingPointError, match="gradient is not finite at step 1"):
        run(tmp_path, student=student, max_grad_norm=max_grad_norm)
    assert largest_difference(weights(student), weights(tiny.model(seed=1))) == 0


def test_a_wider_teacher_is_refused_with_both_widths(tmp_path):
    with pytest.raises(ValueError, match=r"32 wide.*teacher's 64.*set state_loss to 'gram'"):
        trainer(tmp_path, teacher=tiny.model(seed=2, hidden_size=64))


def test_a_layer_that_the_student_lacks_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"layer 4 is outside 1\.\.3"):
        trainer(tmp_path, layers="2,4")


def test_a_prompt_that_does_not_fit_is_refused_with_its_row_and_lengths(tmp_path):
    prompts = ["short", "x" * 300, "short too", "and short"]
    with pytest.raises(ValueError, match=r"prompt 1 has 300 tokens.*312.*student reads 256"):
        trainer(tmp_path, prompts=prompts)


def test_the_teachers_context_counts_as_well(tmp_path):
    small = tiny.model(seed=2, max_position_embeddings=16)
    with pytest.raises(ValueError, match=r"prompt 0 has 10 tokens.*teacher reads 16"):
        trainer(tmp_path, teacher=small, prompts=["0123456789"] * 4)


def test_long_prompts_are_dropped_when_asked(tmp_path):
    prompts = [*runs.PROMPTS[:4], "x" * 300]
    made = trainer(tmp_path, prompts=prompts, long_prompts="drop")
    assert len(made.train_dataset) == 4
    made.train()


def test_prompts_for_evaluation_are_checked_too(tmp_path):
    with pytest.raises(ValueError, match="evaluation prompt 1 has 300 tokens"):
        trainer(tmp_path, eval_prompts=["short", "x" * 300])
    made = trainer(tmp_path, eval_prompts=["short", "x" * 300], long_prompts="drop")
    assert len(made.eval_dataset) == 1


def test_fewer_prompts_than_a_step_needs_are_refused_with_both_numbers(tmp_path):
    with pytest.raises(ValueError, match=r"3 prompts give 3 rollouts, and a step needs 4"):
        trainer(tmp_path, prompts=runs.PROMPTS[:3])
    trainer(tmp_path, prompts=runs.PROMPTS[:3], rollouts_per_prompt=2)


def test_prompts_come_in_the_order_of_the_data_seed(tmp_path):
    def order(**options):
        return list(trainer(tmp_path, **options)._get_train_sampler())

    assert order(data_seed=7) == order(seed=7) == order(seed=7, data_seed=7)
    assert order(data_seed=7) != order(data_seed=8) != order()


def test_options_that_need_a_length_are_refused_for_a_stream(tmp_path):
    from datasets import IterableDataset

    from oprd import OPRDTrainer

    stream = IterableDataset.from_generator(lambda: iter([{"prompt": "hello"}]))
    for option in ({"rollouts_per_prompt": 2}, {"long_prompts": "drop"}):
        with pytest.raises(ValueError, match=f"{next(iter(option))}.*streamed"):
            OPRDTrainer(
                tiny.model(seed=1),
                tiny.model(seed=2),
                runs.settings(tmp_path, **option),
                stream,
                processing_class=tiny.tokenizer(),
            )


def test_a_broken_student_is_named_before_it_writes(tmp_path):
    student = tiny.model(seed=1)
    student.base_model.layers[1].mlp.down_proj.weight.data[0, 0] = math.nan
    broken = r"student's model\.layers\.1\.mlp\.down_proj\.weight is not finite before step 1"
    with pytest.raises(FloatingPointError, match=broken):
        run(tmp_path, student=student, rollout=None)


def test_a_teacher_with_another_tokenizer_is_refused(tmp_path, places):
    base, _ = places
    vocab = json.loads((tmp_path / "base" / "tokenizer.json").read_text())
    table = vocab["model"]["vocab"]
    table["A"], table["B"] = table["B"], table["A"]
    (tmp_path / "base" / "tokenizer.json").write_text(json.dumps(vocab))
    with pytest.raises(ValueError, match=r"the teacher reads 2 of the student's 260 token ids"):
        trainer(tmp_path, teacher=base)


def test_options_of_a_teachers_path_are_refused_for_a_model(tmp_path):
    with pytest.raises(ValueError, match="teacher_model_revision is for a teacher given by its"):
        trainer(tmp_path, teacher_model_revision="main")


def test_a_sampled_id_beyond_the_teachers_embedding_is_refused(tmp_path):
    student = tiny.model(seed=1, vocab_size=300)
    with pytest.raises(ValueError, match="sampled token 280, and the teacher's embedding has 260"):
        run(tmp_path, student=student, rollout=lambda ids: [65, 280])


def test_a_teacher_that_is_the_student_is_refused(tmp_path):
    student = tiny.model(seed=1)
    with pytest.raises(ValueError, match="shares weights with the student"):
        trainer(tmp_path, student=student, teacher=student)


def test_a_student_on_a_hub_that_is_away_is_refused_in_one_sentence(tmp_path, monkeypatch):
    """TRL would ask for half a minute and end with an error of its HTTP library."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FileNotFoundError, match=r"student 'owner/model': .*couldn't connect"):
        trainer(tmp_path, student="owner/model")


def test_a_missing_teacher_is_refused(tmp_path):
    from oprd import OPRDTrainer

    with pytest.raises(ValueError, match="a teacher is needed"):
        OPRDTrainer(tiny.model(), args=runs.settings(tmp_path))


# --- what a run leaves behind ---------------------------------------------------------------------


def test_a_run_records_its_settings_and_every_metric(tmp_path):
    run(tmp_path, max_steps=2, prompts=runs.PROMPTS)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["layer_pairs"] == [[1, 1], [2, 2], [3, 3]]
    assert record["settings"]["layers"] == "all"
    assert {"torch", "trl", "transformers", "oprd", "python"} <= set(record["versions"])
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    expected = {
        "loss",
        "rep_cosine",
        "rep_cosine/layer_01",
        "rep_cosine/layer_03",
        "supervised_tokens",
        "completions/mean_length",
        "completions/empty_ratio",
        "completions/clipped_ratio",
        "seconds/rollout",
        "seconds/teacher",
        "seconds/student",
        "tokens_per_second",
        "peak_memory_gib",
    }
    assert expected <= set(lines[0])
    assert "entropy" not in lines[0]
    assert [line["step"] for line in lines[:2]] == [1, 2]


def test_secrets_of_the_environment_are_in_no_file(tmp_path, monkeypatch):
    secret = "hf_" + "abcdefgh" * 4
    for name in ("HF_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, secret)
    made = run(
        tmp_path,
        hub_token=secret,
        chat_template_kwargs={"token": secret},
        rollout=runs.scripted,
        save_strategy="steps",
        save_steps=1,
    )
    made.save_model()
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path.name


def test_a_runs_folder_holds_no_pickled_settings(tmp_path):
    made = run(tmp_path, save_strategy="steps", save_steps=1)
    made.save_model()
    assert not list(tmp_path.rglob("training_args.bin"))


@pytest.mark.parametrize("printed", [None, 1])
def test_logged_completions_do_not_steer_a_terminal(tmp_path, capsys, monkeypatch, printed):
    monkeypatch.setenv("COLUMNS", "200")
    red = "\x1b[31mred\r\nnext"
    ids = tiny.tokenizer()(red)["input_ids"]
    made = run(
        tmp_path,
        prompts=[f"{red} prompt"] * 4,
        rollout=lambda prompt_ids: [*ids, tiny.EOS],
        per_device_train_batch_size=2,
        max_completion_length=20,
        max_steps=1,
        log_completions=True,
        num_completions_to_print=printed,
        report_to=[],
    )
    shown = capsys.readouterr().out
    assert "\x1b[31m" not in shown
    assert shown.count(r"\x1b[31mred\r ") == 4 * (printed or 2)
    assert made.num_completions_to_print == printed
    # What is stored is what was written.
    (file,) = (tmp_path / "completions").glob("*_00001.parquet")
    assert pd.read_parquet(file)["completion"].tolist() == [red] * 2


def test_evaluation_logs_the_same_figures(tmp_path):
    made = run(
        tmp_path,
        eval_prompts=runs.PROMPTS[:4],
        eval_strategy="steps",
        eval_steps=1,
        max_steps=2,
        per_device_eval_batch_size=4,
    )
    evaluated = next(line for line in made.state.log_history if "eval_loss" in line)
    assert evaluated["eval_loss"] > 0
    assert -1 <= evaluated["eval_rep_cosine"] <= 1
    assert "eval_entropy" not in evaluated
    assert min(logged(tmp_path, "seconds/student")) > 0


@pytest.mark.parametrize("asked", [None, False])
def test_a_student_saved_with_its_cache_off_writes_with_one_unless_told_not_to(tmp_path, asked):
    student, lengths = tiny.model(seed=1), []
    student.config.use_cache = student.generation_config.use_cache = False
    kwargs = {"min_new_tokens": 4, **({} if asked is None else {"use_cache": asked})}
    made = trainer(
        tmp_path,
        student=student,
        rollout=None,
        max_steps=1,
        max_completion_length=4,
        generation_kwargs=kwargs,
    )
    generate = made.model.generate

    def counted(*args, **options):
        handle = made.model.model.register_forward_pre_hook(
            lambda module, args, given: lengths.append(given["input_ids"].shape[1]),
            with_kwargs=True,
        )
        try:
            return generate(*args, **options)
        finally:
            handle.remove()

    made.model.generate = counted
    made.train()
    assert len(lengths) > 1
    assert all(length == 1 for length in lengths[1:]) == (asked is None)
