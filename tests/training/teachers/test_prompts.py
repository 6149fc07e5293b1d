"""A teacher that reads another prompt than the student, in whole runs."""

import copy

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig

from oprd import OPRDTrainer
from oprd.models.batch import MicroBatch
from tests import tiny
from tests.training import runs
from tests.training.runs import LORA, largest_difference, scripted, trainer, weights

PROMPTS = runs.PROMPTS[:8]
HINTED = {"teacher_prompt": [f"the answer is {n}. {prompt}" for n, prompt in enumerate(PROMPTS)]}
SAME = "have the same states: the loss will be 0"


def step(folder, **options):
    """The loss of one step on all prompts, and the weights after it."""
    options = {"per_device_train_batch_size": 8, "scale": "none", "prompts": PROMPTS, **options}
    made = trainer(folder, **options)
    made.train()
    return made.state.log_history[0]["loss"], weights(made.student)


def test_the_loss_compares_states_after_the_students_prompt_with_those_after_the_teachers(tmp_path):
    student, teacher = tiny.model(seed=1), tiny.model(seed=2)
    losses = []
    for prompt, own in zip(PROMPTS, HINTED["teacher_prompt"], strict=True):
        ids, theirs = (tiny.tokenizer()(text)["input_ids"] for text in (prompt, own))
        response = scripted(ids)
        states = []
        for model, asked in ((student, ids), (teacher, theirs)):
            with torch.no_grad():
                hidden = model(torch.tensor([asked + response]), output_hidden_states=True)
            rows = [layer[0, len(asked) - 1 : -1] for layer in hidden.hidden_states[1:]]
            states.append(torch.stack(rows))
        losses.append((states[0] - states[1]).square().mean())
    loss, _ = step(tmp_path, student=student, teacher=teacher, columns=HINTED)
    assert loss == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"columns": {"teacher_prompt": PROMPTS}}, {"teacher_template": "{{ prompt }}"}],
    ids=["column", "template"],
)
@pytest.mark.parametrize("loss", [{}, {"output_loss": "reverse_kl", "diagnostics_steps": 1}])
def test_the_students_own_prompt_as_the_teachers_changes_no_bit(tmp_path, options, loss):
    plain = step(tmp_path / "plain", **loss)
    found = step(tmp_path / "own", **options, **loss)
    assert found[0] == plain[0] and largest_difference(found[1], plain[1]) == 0


def test_any_split_into_micro_batches_takes_the_same_step(tmp_path):
    several = {
        "teacher_prompts": [[f"{n}. {p}", p, p * 2][: 1 + n % 3] for n, p in enumerate(PROMPTS)]
    }

    def double(folder, **options):
        models = {"student": tiny.model(seed=1).double(), "teacher": tiny.model(seed=2).double()}
        return step(folder, **models, columns=several, **options)

    whole = double(tmp_path / "whole")
    parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    split = double(tmp_path / "split", **parts)
    assert split[0] == pytest.approx(whole[0], rel=1e-6)
    assert largest_difference(whole[1], split[1]) < 1e-6


def test_equal_prompts_average_to_one(tmp_path):
    twice = {"teacher_prompts": [[own] * 2 for own in HINTED["teacher_prompt"]]}
    one, two = step(tmp_path / "1", columns=HINTED), step(tmp_path / "2", columns=twice)
    assert two[0] == pytest.approx(one[0], rel=1e-6)
    assert largest_difference(one[1], two[1]) < 1e-6


@pytest.mark.parametrize("options", [{"output_loss": "reverse_kl"}, {"updates_per_rollout": 2}])
def test_other_terms_and_further_updates_meet_the_same_view(tmp_path, options):
    plain = step(tmp_path / "plain", **options, max_steps=2)
    found = step(tmp_path / "own", columns=HINTED, **options, max_steps=2)
    assert found[0] != pytest.approx(plain[0], rel=1e-3)


def test_an_adapter_on_the_students_base_reads_its_own_prompt(tmp_path, places):
    base, adapter = places
    options = {"student": base, "teacher": adapter, "peft_config": LoraConfig(**LORA)}
    made = trainer(tmp_path / "run", prompts=PROMPTS, columns=HINTED, **options)
    made.train()
    assert made.shares_base


def test_a_stream_is_read_too(tmp_path):
    rows = [{"prompt": p, "teacher_prompt": f"hint. {p}"} for p in PROMPTS]
    made = trainer(tmp_path, prompts=PROMPTS)
    made.train_dataset = Dataset.from_list(rows).to_iterable_dataset()
    made._step = 0
    output = made._generate_and_score_completions(rows)
    assert output["teacher_prompt_ids"].shape[:2] == (8, 1)
    assert MicroBatch.of(output).taught.keys() == {""}


def test_other_columns_of_the_data_reach_the_template(tmp_path):
    found = OPRDTrainer(
        model=tiny.model(seed=1),
        teacher_model=tiny.model(seed=2),
        args=runs.settings(tmp_path, teacher_template="{{ solution }} {{ question }}"),
        train_dataset=Dataset.from_dict({"question": PROMPTS, "solution": PROMPTS, "n": PROMPTS}),
        processing_class=tiny.tokenizer(),
        teacher_processing_class=tiny.tokenizer(),
    ).train_dataset
    assert set(found.column_names) == {"prompt", "question", "solution"}


def test_a_teacher_of_the_students_weights_is_warned_of_only_where_it_reads_the_same(
    tmp_path, caplog
):
    student = tiny.model(seed=1)
    trainer(tmp_path, student, copy.deepcopy(student), prompts=PROMPTS, columns=HINTED)
    assert SAME not in caplog.text
    trainer(tmp_path, tiny.model(seed=1), copy.deepcopy(student), prompts=PROMPTS)
    assert SAME in caplog.text


def test_both_prompts_are_shown_side_by_side_before_the_first_step(tmp_path, capsys):
    columns = {"teacher_prompts": [[own, own] for own in HINTED["teacher_prompt"]]}
    made = trainer(
        tmp_path, disable_tqdm=False, prompts=PROMPTS, columns=columns, shuffle_dataset=False
    )
    made.train()
    shown = capsys.readouterr().out
    assert "First prompt as the student reads it, 6 tokens" in shown
    assert "As the teacher does, 23 tokens (and 1 more)" in shown
    assert "0 + 0?▮" in shown and "the answer is 0. 0 + 0?▮" in shown
    assert shown.index("▮ is where the response begins") < shown.index("Its response, ")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"bridge": "fit"}, "prompts of its own, and a bridge comes from states"),
        ({"layer_pairing": "similarity"}, "and layer_pairing='similarity' comes from states"),
        ({"remove_unused_columns": True}, "remove_unused_columns=True takes away"),
        ({"teacher_template": "{{ x }}", "columns": None}, "names 'x', which is no column"),
    ],
)
def test_what_does_not_go_with_prompts_of_its_own_is_refused_at_construction(
    tmp_path, options, problem
):
    with pytest.raises(ValueError, match=problem):
        trainer(tmp_path, **{"prompts": PROMPTS, "columns": HINTED, **options})


def test_a_teacher_context_too_short_for_its_longer_prompt_is_refused_with_row_and_lengths(
    tmp_path,
):
    columns = {"teacher_prompt": [p * (60 if n == 3 else 1) for n, p in enumerate(PROMPTS)]}
    with pytest.raises(ValueError, match=r"prompt 3 .* it has \d+ tokens.*teacher reads 256 at"):
        trainer(tmp_path, prompts=PROMPTS, columns=columns)
    made = trainer(tmp_path, prompts=PROMPTS, columns=columns, long_prompts="drop")
    assert len(made.train_dataset) == 7
