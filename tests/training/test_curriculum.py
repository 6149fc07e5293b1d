"""Prompts drawn by the student's distance, in training runs."""

import json

import pytest
import torch
from datasets import Dataset

from oprd.rollouts.curriculum import NUMBER
from oprd.rollouts.supervised import check_source
from tests import tiny
from tests.training import runs
from tests.training.runs import WRITING, trainer, weights

ERROR = {"curriculum": "error"}


def asked(made):
    """The numbers of the prompts of each step."""
    found, supervise = [], made.rollouts.supervise

    def looking(output, summed, rows):
        found.append([row[NUMBER] for row in rows])
        return supervise(output, summed, rows)

    made.rollouts.supervise = looking
    return found


def test_an_epoch_passes_all_prompts_and_others_come_again(tmp_path):
    made = trainer(tmp_path, max_steps=8, **ERROR)
    steps = asked(made)
    made.train()
    usual = [number for step in steps for number in step[:2]]
    assert sorted(usual) == list(range(16))
    for place, step in enumerate(steps[1:], 1):
        before = {number for earlier in steps[:place] for number in earlier}
        assert len(set(step[2:])) == 2 and before >= set(step[2:])
    logged = (tmp_path / "metrics.jsonl").read_text()
    assert logged.count("curriculum/error_ratio") == 8


def test_a_distance_is_the_state_loss_of_a_prompts_rollout(tmp_path):
    student, teacher = tiny.model(seed=1), tiny.model(seed=2)
    before = {name: t.clone() for name, t in student.state_dict().items()}
    options = {"positions": "all", "layers": "1,3", "shuffle_dataset": False}
    made = trainer(tmp_path, student=student, teacher=teacher, **options, **ERROR)
    made.train()
    student.load_state_dict(before)
    tokenizer = tiny.tokenizer()
    errors = made.rollouts.curriculum._errors
    assert (~errors.isnan()).nonzero()[:, 0].tolist() == [0, 1]
    for number in (0, 1):
        prompt = tokenizer(runs.PROMPTS[number])["input_ids"]
        response = runs.scripted(prompt)
        ids = torch.tensor([prompt + response])
        with torch.no_grad():
            states = [m(ids, output_hidden_states=True).hidden_states for m in (student, teacher)]
        rows = slice(len(prompt) - 1, -1)
        apart = [
            (own[layer][0, rows] - theirs[layer][0, rows]).pow(2).mean()
            for own, theirs in [states]
            for layer in (1, 3)
        ]
        assert errors[number].item() == pytest.approx(float(sum(apart) / 2), rel=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rollouts_ahead": 2, "updates_per_rollout": 2},
        {"replay": 8, "per_device_train_batch_size": 8},
        {"gradient_accumulation_steps": 2, "rollouts_per_prompt": 2},
    ],
)
def test_a_resumed_run_ends_bit_identical(tmp_path, options):
    prompts = [f"{n} + {n * 7 % 11}?" for n in range(32)]

    def run(folder, resume=None):
        saving = {"save_strategy": "steps", "save_steps": 4, "prompts": prompts}
        made = trainer(folder, max_steps=12, **WRITING, **ERROR, **saving, **options)
        steps = asked(made)
        made.train(resume_from_checkpoint=resume)
        return weights(made.model), steps

    whole, steps = run(tmp_path / "whole")
    resumed, later = run(tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-4"))
    assert later == steps[-len(later) :] and len(later) < len(steps)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_evaluation_between_updates_changes_nothing(tmp_path):
    students = []
    for every in (0, 1):
        options = {"eval_strategy": "steps", "eval_steps": 1} if every else {}
        made = trainer(
            tmp_path / str(every),
            max_steps=4,
            updates_per_rollout=2,
            replay=4,
            max_drift_kl=1e-3,
            eval_prompts=runs.PROMPTS[:2],
            **ERROR,
            **options,
            per_device_train_batch_size=4,
        )
        made.train()
        students.append(weights(made.model))
    # Rows of a batch stand in another order.
    assert runs.largest_difference(*students) < 1e-6


def test_prompts_are_enough_where_those_in_order_are(tmp_path):
    with pytest.raises(ValueError, match="a step needs 4"):
        trainer(tmp_path / "plain", prompts=runs.PROMPTS[:2])
    trainer(tmp_path, prompts=runs.PROMPTS[:2], **ERROR).train()
    (line, *_) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["curriculum/error_ratio"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"curriculum": "length"},
            "curriculum is 'error', or is left out for the usual order, got 'length'",
        ),
        ({**ERROR, "curriculum_floor": 1}, "curriculum_floor must be above 0 and below 1"),
        ({**ERROR, "curriculum_floor": 0.1}, "leaves 0 for prompts in the usual order and 4"),
        ({**ERROR, "per_device_train_batch_size": 1}, "there must be some of both"),
        (
            {**ERROR, "output_loss": "reverse_kl", "representation_weight": 0},
            "draws prompts by the distance of states, and representation_weight is 0",
        ),
        (
            {**ERROR, "teachers": '[{"name": "a"}, {"name": "b"}]'},
            "draws prompts of any teacher, and teacher_batches='pure'",
        ),
    ],
)
def test_what_cannot_be_right_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        runs.settings(tmp_path, **options)


def test_streams_and_rows_without_their_number_are_refused(tmp_path):
    stream = Dataset.from_dict({"prompt": ["a"]}).to_iterable_dataset()
    with pytest.raises(ValueError, match="curriculum='error' needs a dataset with a length"):
        check_source(stream, runs.settings(tmp_path, **ERROR))
    with pytest.raises(ValueError, match="remove_unused_columns=True takes away what is no column"):
        check_source(None, runs.settings(tmp_path, remove_unused_columns=True, **ERROR))
