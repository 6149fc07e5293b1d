"""Several optimizer steps on the same rollouts."""

import copy
import json

import pytest
import torch
from transformers import TrainerCallback

from tests import tiny
from tests.training import runs
from tests.training.runs import trainer, weights


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def counted(made):
    """A trainer whose generations and teacher readings are counted."""
    calls = {"rollouts": 0, "readings": 0}
    generate, read = made._generate_and_score_completions, made._teacher._read

    def counting_generate(inputs):
        calls["rollouts"] += 1
        return generate(inputs)

    def counting_read(*args, **options):
        calls["readings"] += 1
        return read(*args, **options)

    made._generate_and_score_completions = counting_generate
    made._teacher._read = counting_read
    return calls


@pytest.mark.parametrize("accumulation", [1, 2])
def test_rollouts_are_written_once_for_all_their_updates(tmp_path, accumulation):
    made = trainer(
        tmp_path,
        max_steps=6,
        updates_per_rollout=3,
        per_device_train_batch_size=4 // accumulation,
        gradient_accumulation_steps=accumulation,
    )
    calls = counted(made)
    made.train()
    assert calls == {"rollouts": 2, "readings": 2 * accumulation}
    losses = [line["loss"] for line in lines(tmp_path) if "loss" in line]
    assert losses[0] > losses[1] > losses[2]


def test_reading_anew_gives_the_same_student_as_keeping_what_was_read(tmp_path):
    readings, students = [], []
    for keep in (True, False):
        made = trainer(
            tmp_path / str(keep), max_steps=4, updates_per_rollout=2, keep_teacher_states=keep
        )
        calls = counted(made)
        made.train()
        readings.append(calls["readings"])
        students.append(weights(made.model))
    assert readings == [2, 4]
    kept, anew = students
    assert all(torch.equal(kept[name], anew[name]) for name in kept)


@pytest.mark.parametrize("updates", [1, 2])
def test_what_the_teacher_read_is_let_go_at_its_last_use(tmp_path, updates):
    made = trainer(tmp_path, max_steps=2, updates_per_rollout=updates)
    made.train()
    assert made._buffered_inputs
    assert all("teacher" not in inputs["kept"] for inputs in made._buffered_inputs)


def test_diagnostics_on_some_steps_read_what_was_not_kept(tmp_path):
    made = trainer(tmp_path, max_steps=4, updates_per_rollout=2, diagnostics_steps=2)
    calls = counted(made)
    made.train()
    assert calls["readings"] == 4
    assert [line["step"] for line in lines(tmp_path) if "diagnostics/reverse_kl" in line] == [2, 4]


def test_the_drift_is_that_of_the_student_since_it_wrote(tmp_path):
    class Keep(TrainerCallback):
        def on_step_end(self, args, state, control, model, **_):
            if state.global_step == 1:
                states[1] = {name: t.clone() for name, t in model.state_dict().items()}

    prompts = runs.PROMPTS[:4]
    student = tiny.model(seed=1)
    states = {0: {name: t.clone() for name, t in student.state_dict().items()}}
    options = {"max_steps": 2, "updates_per_rollout": 2, "temperature": 0.7}
    made = trainer(tmp_path, student=student, prompts=prompts, **options)
    made.add_callback(Keep())
    made.train()
    changes = []
    for prompt in prompts:
        ids = tiny.tokenizer()(prompt)["input_ids"]
        response = runs.scripted(ids)
        log_probs = []
        for state in states.values():
            student.load_state_dict(state)
            with torch.no_grad():
                logits = student(torch.tensor([ids + response])).logits[0, len(ids) - 1 : -1]
            target = torch.tensor(response)[:, None]
            log_probs.append((logits / 0.7).log_softmax(-1).gather(1, target)[:, 0])
        changes.append(log_probs[1] - log_probs[0])
    change = torch.cat(changes)
    expected = (change.exp() - 1 - change).mean().item()
    logged = {line["step"]: line["drift_kl"] for line in lines(tmp_path) if "drift_kl" in line}
    assert logged == {2: pytest.approx(expected, rel=1e-4)}
    assert expected > 1e-6


def test_the_drift_is_measured_in_the_last_update_on_each_batch_of_rollouts(tmp_path):
    trainer(tmp_path, max_steps=8, updates_per_rollout=4).train()
    assert [line["step"] for line in lines(tmp_path) if "drift_kl" in line] == [4, 8]


def test_a_run_after_one_that_broke_off_between_rollouts_begins_with_its_own(tmp_path):
    class BreakOff(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            raise InterruptedError

    made = trainer(tmp_path, max_steps=2, updates_per_rollout=2)
    calls, callback = counted(made), BreakOff()
    made.add_callback(callback)
    with pytest.raises(InterruptedError):
        made.train()
    made.remove_callback(callback)
    made.train()
    assert calls["rollouts"] == 2


def test_an_epoch_has_as_many_steps_more(tmp_path):
    made = trainer(tmp_path, max_steps=-1, num_train_epochs=1, updates_per_rollout=3)
    made.train()
    assert made.state.global_step == 3 * len(runs.PROMPTS) // 4


def test_what_is_kept_with_a_micro_batch_gets_past_a_wrapper_that_copies_its_arguments(tmp_path):
    made = trainer(tmp_path, max_steps=2, updates_per_rollout=2)
    redirect = made._forward_redirection
    arguments = []

    def copying(wrapper, original, method, *args, **kwargs):
        arguments.extend([*args, *kwargs.values()])
        return redirect(wrapper, original, method, *copy.copy(args), **kwargs)

    made._forward_redirection = copying
    calls = counted(made)
    made.train()
    assert calls["readings"] == 1
    assert not [argument for argument in arguments if isinstance(argument, dict)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"updates_per_rollout": 0}, "updates_per_rollout must be a whole number of at least 1"),
        (
            {"updates_per_rollout": 2, "save_strategy": "steps", "save_steps": 3, "max_steps": 4},
            "save_steps=3 must be a multiple of updates_per_rollout=2",
        ),
        (
            {"updates_per_rollout": 2, "max_steps": 5},
            "max_steps=5 must be a multiple of updates_per_rollout=2",
        ),
        (
            {"updates_per_rollout": 2, "output_loss": "sampled", "max_steps": 4},
            "updates_per_rollout=2 makes several updates on them: take another output loss",
        ),
    ],
)
def test_what_cannot_be_right_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        runs.settings(tmp_path, **options)
