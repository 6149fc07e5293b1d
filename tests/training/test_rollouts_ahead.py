"""Rollouts of several steps written at once, and limits that change."""

import json

import pytest
import torch

from oprd.rollouts.supervised import check_source
from tests import tiny
from tests.reference.representation import divergence_weighted_loss
from tests.training import runs
from tests.training.runs import WRITING, check_goes_on_bit_identical, scripted, trainer, weights


def counted(made):
    """How many prompts are asked at a time, and the most tokens of a response then."""
    calls, write = [], made._writer.write

    def counting(prompt_ids, *args):
        calls.append((len(prompt_ids), made.generation_config.max_new_tokens))
        return write(prompt_ids, *args)

    made._writer.write = counting
    return calls


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("updates", [1, 2])
def test_steps_written_at_once_train_on_the_rollouts_that_they_would_have(
    tmp_path, accumulation, updates
):
    students, asked = [], []
    prompts = [f"{n} and {n * n}?" for n in range(24)]
    for ahead in (1, 3):
        made = trainer(
            tmp_path / str(ahead),
            rollout=scripted,
            prompts=prompts,
            max_steps=6 * updates,
            rollouts_ahead=ahead,
            updates_per_rollout=updates,
            per_device_train_batch_size=4 // accumulation,
            gradient_accumulation_steps=accumulation,
        )
        asked.append(counted(made))
        made.train()
        students.append(weights(made.model))
    assert [[count for count, _ in calls] for calls in asked] == [[4] * 6, [12] * 2]
    one, three = students
    # Scripted rollouts do not depend on the student: nothing else may be different.
    assert all(torch.equal(one[name], three[name]) for name in one)


def test_rollouts_written_ahead_are_those_of_the_student_that_was(tmp_path):
    made = trainer(tmp_path, max_steps=4, rollouts_ahead=2, **WRITING)
    written, write = [], made._writer.write

    def looking(prompt_ids, *args):
        written.append(made.state.global_step)
        return write(prompt_ids, *args)

    made._writer.write = looking
    made.train()
    assert written == [0, 2]


@pytest.mark.parametrize("updates", [1, 2])
def test_the_drift_is_that_since_they_were_written(tmp_path, updates):
    student = tiny.model(seed=1)
    options = {"rollouts_ahead": 2, "updates_per_rollout": updates, "temperature": 0.7}
    made = trainer(
        tmp_path, student=student, max_steps=2 * updates, **{**WRITING, "optim": "sgd"}, **options
    )
    states, micro_step = [], made.training_step

    def keeping(*args, **kwargs):
        states.append({name: t.clone() for name, t in student.state_dict().items()})
        return micro_step(*args, **kwargs)

    made.training_step = keeping
    made.train()
    changes = []
    for rollout in made.rollouts.origins.batch:
        ids, log_probs = rollout.prompt_ids + rollout.response_ids, []
        for state in (states[0], states[-1]):
            student.load_state_dict(state)
            with torch.no_grad():
                logits = student(torch.tensor([ids])).logits[0, len(rollout.prompt_ids) - 1 : -1]
            target = torch.tensor(rollout.response_ids)[:, None]
            log_probs.append((logits / 0.7).log_softmax(-1).gather(1, target)[:, 0])
        changes.append(log_probs[1] - log_probs[0])
    change = torch.cat(changes)
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    found = {line["step"]: line["drift_kl"] for line in logged if "drift_kl" in line}
    # With several updates, the last one on each.
    assert list(found) == ([2] if updates == 1 else [2, 4])
    expected = (change.exp() - 1 - change).mean().item()
    assert expected > 1e-7 and found[2 * updates] == pytest.approx(expected, rel=1e-2)


def test_a_student_whose_head_cannot_be_read_writes_ahead_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("oprd.training.trainer.head_is_read", lambda student: False)
    made = trainer(tmp_path, max_steps=2, rollouts_ahead=2, **WRITING)
    made.train()
    assert "drift_kl" not in (tmp_path / "metrics.jsonl").read_text()


def test_a_rate_is_found_on_rollouts_that_are_written_anew_for_the_run(tmp_path):
    made = trainer(
        tmp_path,
        max_steps=4,
        rollouts_ahead=2,
        rollout=None,
        learning_rate="auto",
        optim="adamw_torch",
    )
    asked = counted(made)
    made.train()
    # Of the first step alone for the test.
    assert [count for count, _ in asked] == [4, 8, 8]


@pytest.mark.parametrize(
    "options",
    [
        {"updates_per_rollout": 2},
        {"rollouts_ahead": 2},
        {"rollout_horizon": {"from": 2, "to": 12, "steps": 6}},
        {"rollouts_ahead": 2, "updates_per_rollout": 2, "rollouts_per_prompt": 2},
        {"rollouts_ahead": 2, "rollout_horizon": {"from": 2, "to": 12, "steps": 6}},
    ],
)
def test_a_resumed_run_ends_bit_identical(tmp_path, options):
    check_goes_on_bit_identical(tmp_path, **options)


def test_a_horizon_limits_responses_step_by_step_and_evaluations_never(tmp_path):
    made = trainer(
        tmp_path,
        max_steps=4,
        rollout_horizon={"from": 2, "to": 12, "start": 1, "steps": 2},
        eval_prompts=runs.PROMPTS[:2],
        eval_strategy="steps",
        eval_steps=2,
        **WRITING,
    )
    asked, generate = [], made.student.generate

    def looking(*args, **options):
        asked.append((made.student.training, options["generation_config"].max_new_tokens))
        return generate(*args, **options)

    made.student.generate = looking
    made.train()
    assert [limit for trains, limit in asked if trains] == [2, 2, 7, 12]
    assert {limit for trains, limit in asked if not trains} == {12}
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    longest = [
        line["completions/max_length"] for line in logged if "completions/max_length" in line
    ]
    assert longest[0] <= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rollouts_ahead": 0}, "rollouts_ahead must be a whole number of at least 1"),
        (
            {"rollouts_ahead": 2, "updates_per_rollout": 2, "max_steps": 6},
            "max_steps=6 must be a multiple of updates_per_rollout=2 × rollouts_ahead=2",
        ),
        (
            {"rollouts_ahead": 2, "max_steps": 4, "save_strategy": "steps", "save_steps": 1},
            "save_steps=1 must be a multiple of rollouts_ahead=2",
        ),
        (
            {"rollouts_ahead": 2, "max_steps": 2, "output_loss": "sampled"},
            "rollouts_ahead=2 makes other updates before those on them",
        ),
        (
            {"rollout_horizon": {"from": 2, "to": 13, "steps": 1}},
            "to must be a whole number from 1 to max_completion_length=12, got 13",
        ),
        (
            {"rollout_horizon": {"from": 0, "to": 12, "steps": 1}},
            "from must be a whole number from 1 to max_completion_length=12, got 0",
        ),
        (
            {
                "rollout_horizon": {"from": 1, "to": 12, "steps": 2},
                "state_loss": "gram",
                "max_steps": 2,
            },
            "of 1 it learns nothing",
        ),
        (
            {
                "rollout_horizon": {"from": 2, "to": 12, "steps": 2},
                "generation_kwargs": {"min_new_tokens": 6},
                "max_steps": 2,
            },
            r"asks for 6 tokens at least \(min_new_tokens\), and rollout_horizon allows 2",
        ),
        (
            {"rollouts_ahead": 2, "max_steps": 4, "save_strategy": "steps", "save_steps": 0.75},
            "save_steps=0.75 must be a multiple of rollouts_ahead=2",
        ),
        (
            {"positions": "divergence", "reduction": "token"},
            "which reduction='token' does not have: leave one of them out",
        ),
        ({"rollout_horizon": 8}, "rollout_horizon=8 does not change: set max_completion_length"),
        (
            {"rollout_horizon": {"from": 2, "to": 12, "steps": 2}},
            "rollout_horizon changes until step 2, and there are 1 steps",
        ),
        (
            {"rollout_horizon": {"from": 2, "to": 12, "steps": 0.5}, "max_steps": -1},
            "rollout_horizon changes, which needs a run of known length: set max_steps",
        ),
        (
            {"rollout_horizon": {"from": 2, "to": 12}},
            'rollout_horizon needs steps: write it as {"from": 16, "to": 56, "steps": 0.5}',
        ),
        (
            {"rollout_horizon": {"from": 8, "to": 8, "steps": 1}},
            "goes from 8 to the same: set max_completion_length to it, and leave this out",
        ),
    ],
)
def test_what_cannot_be_right_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        runs.settings(tmp_path, **options)


def test_prompts_that_fill_no_time_of_writing_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"8 steps \(rollouts_ahead\) need 32: lower"):
        trainer(tmp_path, max_steps=8, rollouts_ahead=8)


def test_pictures_and_tools_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"rollouts_ahead=2 .* the prompts have pictures"):
        trainer(tmp_path, max_steps=2, rollouts_ahead=2, columns={"image": [None] * 16})
    with pytest.raises(ValueError, match=r"rollouts_ahead=2 .* tools answer in between"):
        check_source(None, runs.settings(tmp_path, max_steps=2, rollouts_ahead=2), [print])


def test_shares_of_a_run_are_saved_where_they_fall_between_rollouts(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 0.5, "max_steps": 4}
    assert runs.settings(tmp_path, **saving).save_steps == 0.5
    assert runs.settings(tmp_path, rollouts_ahead=2, **saving).save_steps == 0.5


def test_a_checkpoint_between_rollouts_written_at_once_is_not_gone_on_from(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 1}
    trainer(tmp_path, max_steps=1, **WRITING, **saving).train()
    saving = {"save_steps": 2, "save_strategy": "steps", "allow_changed": "rollouts_ahead"}
    made = trainer(tmp_path, max_steps=4, rollouts_ahead=2, **WRITING, **saving)
    with pytest.raises(ValueError, match="not all that was written is used up: with rollouts_ahea"):
        made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_teachers_whose_prompts_fill_no_time_of_writing_are_refused(tmp_path):
    columns = {"teacher": ["a", "b", "b", "a", "b"] * 3}
    made = trainer(
        tmp_path,
        teacher={"a": tiny.model(seed=2), "b": tiny.model(seed=3)},
        teachers='[{"name": "a"}, {"name": "b"}]',
        prompts=[str(n) for n in range(15)],
        columns=columns,
        per_device_train_batch_size=5,
        rollouts_ahead=3,
        max_steps=3,
    )
    with pytest.raises(ValueError, match="fill no 3 steps of one teacher each"):
        made.get_train_dataloader()


def test_positions_by_divergence_are_weighed_as_the_definition_says(tmp_path):
    both = tiny.model(seed=1), tiny.model(seed=2)
    kept = {}
    made = trainer(tmp_path, student=both[0], teacher=both[1], positions="divergence", layers="2")
    loss_of = made._compute_loss

    def keeping(student, inputs, count):
        with torch.no_grad():
            ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
            mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
            places = (mask.cumsum(dim=1) - 1).clamp(min=0)
            read = [
                m(ids, attention_mask=mask, position_ids=places, output_hidden_states=True)
                for m in both
            ]
            rows = slice(inputs["prompt_ids"].shape[1] - 1, -1)
            states = [found.hidden_states[2][:, rows] for found in read]
        total, responses = divergence_weighted_loss(*states, inputs["positions"].bool(), False)
        kept["expected"] = float(total) / responses
        return loss_of(student, inputs, count)

    made._compute_loss = keeping
    made.train()
    (line, *_) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["loss"] == pytest.approx(kept["expected"], rel=1e-3)


def test_fewer_rollouts_ahead_than_were_asked_for_are_refused(tmp_path):
    made = trainer(tmp_path, max_steps=2, rollouts_ahead=2)
    made.rollouts.write = lambda prompt_ids: [[5]] * (len(prompt_ids) - 1)
    with pytest.raises(RuntimeError, match="8 rollouts were asked for and 7 came back"):
        made.train()
