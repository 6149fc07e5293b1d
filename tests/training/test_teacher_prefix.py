"""Responses that the teacher begins, in training runs."""

import json

import pytest
import torch
from datasets import Dataset
from peft import AutoPeftModelForCausalLM, LoraConfig

from oprd import OPRDTrainer
from oprd.rollouts.supervised import check_source
from oprd.training.teachers.assemble import obtain
from tests import tiny
from tests.training import runs
from tests.training.runs import (
    LORA,
    PROMPTS,
    check_goes_on_bit_identical,
    trainer,
)

# The likeliest token each time, so that it is known who writes what.
LIKELIEST = {"rollout": None, "top_k": 1}


def written(made):
    """The rollouts of every batch, as they are written."""
    found, write = [], made._writer.write

    def keeping(prompt_ids, *args):
        found.append(write(prompt_ids, *args))
        return found[-1]

    made._writer.write = keeping
    return found


def likeliest(model, prompt, most):
    """What a model writes to one prompt, up to an end token."""
    ids = torch.tensor([prompt])
    model.eval()
    with torch.no_grad():
        for _ in range(most):
            token = model(ids).logits[:, -1].argmax(dim=-1, keepdim=True)
            ids = torch.cat([ids, token], dim=1)
            if int(token) == tiny.EOS:
                break
    return ids[0, len(prompt) :].tolist()


@pytest.mark.parametrize("length", [None, 3])
def test_the_teacher_begins_and_the_student_goes_on(tmp_path, length):
    student, teacher = tiny.model(seed=1), tiny.model(seed=2)
    made = trainer(
        tmp_path,
        student=student,
        teacher=teacher,
        teacher_prefix=0.5,
        teacher_prefix_length=length,
        **LIKELIEST,
    )
    batches = written(made)
    before = tiny.model(seed=1)
    made.train()
    ((first, second, third, fourth),) = batches
    for own in (first, third):
        assert own.by_teacher == 0
        assert own.response_ids == likeliest(before, own.prompt_ids, 12)
    for begun in (second, fourth):
        beginning = likeliest(teacher, begun.prompt_ids, length or 12)
        rest = likeliest(before, begun.prompt_ids + beginning, 12 - len(beginning))
        assert begun.by_teacher == len(beginning)
        assert begun.response_ids == beginning + rest
    (line, *_) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    tokens = [(r.by_teacher, len(r.response_ids)) for r in batches[0]]
    ratio = sum(own for own, _ in tokens) / sum(length for _, length in tokens)
    assert json.loads(line)["completions/teacher_ratio"] == pytest.approx(ratio)


def test_a_teacher_writes_after_the_prompt_that_it_reads(tmp_path):
    teacher, hints = tiny.model(seed=2), [f"know {n}: {p}" for n, p in enumerate(PROMPTS)]
    made = trainer(
        tmp_path,
        teacher=teacher,
        columns={"teacher_prompt": hints},
        teacher_prefix=1.0,
        shuffle_dataset=False,
        **LIKELIEST,
    )
    batches = written(made)
    made.train()
    tokenizer = tiny.tokenizer()
    for place, rollout in enumerate(batches[0]):
        assert rollout.prompt_ids == tokenizer(PROMPTS[place])["input_ids"]
        asked = tokenizer(hints[place])["input_ids"]
        assert rollout.response_ids == likeliest(teacher, asked, 12)


def test_an_adapter_on_the_students_base_writes_with_its_own_weights(tmp_path, places):
    base, adapter = places
    made = OPRDTrainer(
        model=base,
        teacher_model=adapter,
        args=runs.settings(tmp_path, teacher_prefix=1.0, top_k=1),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        peft_config=LoraConfig(**LORA),
    )
    assert made.shares_base
    batches = written(made)
    made.train()
    teacher = AutoPeftModelForCausalLM.from_pretrained(adapter)
    for rollout in batches[0]:
        assert rollout.response_ids == likeliest(teacher, rollout.prompt_ids, 12)
    assert made.student.training and made.student.active_adapters == ["default"]


def test_a_teacher_with_more_tokens_writes_those_of_the_student_alone(tmp_path):
    teacher = tiny.model(seed=2, vocab_size=400)
    made = trainer(
        tmp_path, teacher=teacher, rollout=None, teacher_prefix=1.0, temperature=50.0, max_steps=3
    )
    batches = written(made)
    made.train()
    ids = [token for batch in batches for rollout in batch for token in rollout.response_ids]
    assert len(ids) > 100 and max(ids) < made.student.config.vocab_size


@pytest.mark.parametrize(
    "options",
    [
        {"teacher_prefix": {"from": 1, "to": 0, "steps": 6}},
        {"teacher_prefix": 0.5, "teacher_prefix_length": 4, "rollouts_ahead": 2},
    ],
)
def test_a_resumed_run_ends_bit_identical(tmp_path, options):
    check_goes_on_bit_identical(tmp_path, **options)


@pytest.mark.parametrize(("share", "drifts"), [(1.0, False), (0.5, True)])
def test_the_drift_is_that_of_what_the_student_wrote(tmp_path, share, drifts):
    made = trainer(tmp_path, rollout=None, teacher_prefix=share, updates_per_rollout=2, max_steps=2)
    made.train()
    logged = (tmp_path / "metrics.jsonl").read_text()
    assert ("drift_kl" in logged) == drifts


def test_an_evaluation_is_written_by_the_student_alone(tmp_path):
    made = trainer(
        tmp_path,
        teacher_prefix=1.0,
        eval_prompts=PROMPTS[:4],
        eval_strategy="steps",
        eval_steps=1,
        **LIKELIEST,
    )
    batches = written(made)
    made.train()
    trained, evaluated = batches
    assert all(rollout.by_teacher for rollout in trained)
    assert not any(rollout.by_teacher for rollout in evaluated)
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in logged if "eval_loss" in line]
    assert evaluations and not any("teacher_ratio" in name for name in evaluations[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher_prefix": 1.5}, "teacher_prefix is a share above 0, of 1 at most, got 1.5"),
        ({"teacher_prefix": {"from": 2, "to": 0, "steps": 1}}, "of 1 at most, got 2"),
        ({"teacher_prefix": 0}, "teacher_prefix is a share above 0, of 1 at most, got 0"),
        (
            {"teacher_prefix": {"from": 1, "to": 0, "steps": 2}},
            "teacher_prefix changes until step 2, and there are 1 steps",
        ),
        ({"teacher_prefix_length": 3}, "has no effect without teacher_prefix"),
        (
            {"teacher_prefix": 1, "teacher_prefix_length": 12},
            "teacher_prefix_length=12 leaves the student nothing of a response of 12 tokens",
        ),
        (
            {"teacher_prefix": 1, "teacher_prefix_length": 0},
            "teacher_prefix_length must be a whole number of at least 1",
        ),
        (
            {
                "teacher_prefix": 1,
                "teacher_prefix_length": 4,
                "rollout_horizon": {"from": 3, "to": 12, "steps": 1},
            },
            "teacher_prefix_length=4 leaves the student nothing of a response of 3 tokens",
        ),
        (
            {
                "teacher_prefix": 1,
                "teacher_prefix_length": 4,
                "generation_kwargs": {"min_new_tokens": 2},
            },
            "min_new_tokens=2 would be counted from where the student goes on",
        ),
        (
            {"teacher_prefix": 1, "max_completion_length": None},
            "teacher_prefix needs a limit on what the teacher writes",
        ),
        (
            {"teacher_prefix": 1, "output_loss": "sampled"},
            "output_loss='sampled' is the gradient of the student that wrote the rollouts, and "
            "teacher_prefix lets the teacher write of them",
        ),
        (
            {"teacher_prefix": 1, "teacher_tokenizer": "own"},
            "lets the teacher write, and the teacher reads other tokens than the student's",
        ),
        (
            {"teacher_prefix": 1, "teachers": '[{"name": "a"}, {"name": "b"}]'},
            "lets the teacher write, and there are several teachers",
        ),
        ({"teacher_prefix": 1, "use_vllm": True}, "and vLLM holds the student alone"),
        (
            {
                "teacher_prefix": 1,
                "teacher_source": "server",
                "teacher_server_url": "http://127.0.0.1:1",
                "teacher_server_folder": "states",
                "teacher_model_name_or_path": "owner/name",
            },
            "and the teacher stands on a server",
        ),
    ],
)
def test_what_cannot_be_right_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        runs.settings(tmp_path, **options)


def test_pictures_and_tools_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"teacher_prefix=1.0 .* the prompts have pictures"):
        trainer(tmp_path, teacher_prefix=1.0, columns={"image": [None] * 16})
    with pytest.raises(ValueError, match=r"teacher_prefix=1.0 .* in between: leave it out"):
        check_source(None, runs.settings(tmp_path, teacher_prefix=1.0), [print])


def test_a_teacher_in_pieces_is_refused(tmp_path):
    made = trainer(tmp_path, teacher_prefix=1.0)
    made.is_fsdp_enabled = True
    with pytest.raises(ValueError, match="FSDP and DeepSpeed keep its weights in pieces"):
        obtain(made._team, made, None, None)
