import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from transformers import TrainerCallback

from oprd.guards.signals import Stopped
from oprd.runs.manifest import problem
from tests.training.runs import PROMPTS, trainer, weights
from tests.training.test_resume import steps

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}


@pytest.fixture(autouse=True)
def defaults():
    """As in a terminal; a program that a shell started in the background ignores Ctrl-C."""
    before = {number: signal.getsignal(number) for number in CODES}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Asking(TrainerCallback):
    """A signal in a step, counted from 0."""

    def __init__(self, number, step):
        self.number, self.step = number, step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)


def run(folder, number=0, step=1, resume=None, **options):
    made = trainer(**steps(folder, **{"save_strategy": "no", **options}))
    made.add_callback(Asking(number, step))
    made.train(resume_from_checkpoint=resume)
    return weights(made.model)


@pytest.mark.parametrize(
    ("number", "options", "ends"),
    [
        (signal.SIGTERM, {}, 2),
        (signal.SIGINT, {}, 2),
        (signal.SIGTERM, {"updates_per_rollout": 2}, 2),
        (signal.SIGTERM, {"updates_per_rollout": 4}, 4),
        (signal.SIGTERM, {"rollouts_ahead": 2}, 2),
        (signal.SIGTERM, {"enable_jit_checkpoint": True}, 2),
        (
            signal.SIGTERM,
            {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
            2,
        ),
        (signal.SIGTERM, {"save_strategy": "epoch", "prompts": PROMPTS[:8]}, 2),
    ],
)
def test_a_signal_ends_a_run_after_its_step_and_it_goes_on_bit_identically(
    tmp_path, capfd, number, options, ends
):
    step = 0 if {"updates_per_rollout", "rollouts_ahead"} & set(options) else 1
    with pytest.raises(Stopped) as stopped:
        run(tmp_path / "stopped", number, step, **options)
    assert stopped.value.code == CODES[number]
    assert stopped.value.step == ends
    assert stopped.value.checkpoint == tmp_path / "stopped" / f"checkpoint-{ends}"
    assert problem(stopped.value.checkpoint) is None
    *_, line = capfd.readouterr().err.strip().splitlines()
    assert line == (
        f"{number.name}: ended after step {ends}, saved in {stopped.value.checkpoint}. Go on with: "
        "resume_from_checkpoint auto"
    )
    whole = run(tmp_path / "whole", **options)
    gone_on = run(tmp_path / "stopped", resume=True, **options)
    assert all((whole[name] == gone_on[name]).all() for name in whole)


@pytest.mark.parametrize("during", ["evaluate", "_save_checkpoint"])
@pytest.mark.parametrize("strategy", ["steps", "best"])
def test_a_signal_between_two_steps_ends_the_run_there_with_one_checkpoint(
    tmp_path, during, strategy
):
    saved = []
    made = trainer(
        **steps(
            tmp_path,
            save_steps=1,
            eval_strategy="steps",
            eval_steps=1,
            eval_prompts=PROMPTS[:2],
            save_strategy=strategy,
            metric_for_best_model="loss",
        )
    )
    original, save = getattr(made, during), made._save_checkpoint

    def asked(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    def saving(*args, **kwargs):
        saved.append(made.state.global_step)
        return (asked if during == "_save_checkpoint" else save)(*args, **kwargs)

    made._save_checkpoint = saving
    if during == "evaluate":
        made.evaluate = asked
    with pytest.raises(Stopped):
        made.train()
    assert saved == [1]
    assert made.state.global_step == 1


def test_a_run_that_is_ended_is_not_evaluated_on_tasks_first(tmp_path, monkeypatch):
    from oprd.training.task_evaluation import TaskEvaluation

    evaluated = []
    monkeypatch.setattr(
        TaskEvaluation, "_evaluate", lambda self, state, control: evaluated.append(state)
    )
    with pytest.raises(Stopped):
        run(tmp_path, signal.SIGTERM, eval_tasks="arithmetic", eval_steps=2)
    # Before the first step alone.
    assert len(evaluated) == 1


@pytest.mark.parametrize("jit", [False, True])
def test_signals_are_as_before_when_training_has_ended(tmp_path, jit):
    run(tmp_path, enable_jit_checkpoint=jit, max_steps=1)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_a_handler_of_someone_else_keeps_its_signal(tmp_path):
    taken = []
    signal.signal(signal.SIGTERM, lambda number, frame: taken.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run(tmp_path, signal.SIGTERM, max_steps=2)
    run(tmp_path, signal.SIGINT, max_steps=2)
    assert taken == [signal.SIGTERM]


def test_a_run_outside_the_main_thread_trains_without_signals(tmp_path):
    done = []
    thread = threading.Thread(target=lambda: done.append(run(tmp_path, max_steps=1)))
    thread.start()
    thread.join()
    assert done


TWICE = """
import json, os, signal, sys, time
from accelerate import Accelerator
from oprd.guards.signals import Interruption

def asked_twice(name, launched, seconds):
    if launched:
        os.environ["LOCAL_RANK"] = "0"
    with Interruption(accelerator, 1).listening():
        os.kill(os.getpid(), signal.Signals[name])
        time.sleep(seconds)
        os.kill(os.getpid(), signal.Signals[name])
    os._exit(0)

signal.signal(signal.SIGINT, signal.default_int_handler)
accelerator, ends = Accelerator(cpu=True), []
for case in json.loads(sys.argv[1]):
    if (child := os.fork()) == 0:
        asked_twice(*case)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(ends)
"""


def test_a_second_signal_ends_a_run_at_once():
    cases = {
        ("SIGTERM", False, 0): -signal.SIGTERM,
        ("SIGINT", False, 0): -signal.SIGINT,
        # What torchrun passes on of a Ctrl-C that its processes have had is no second one.
        ("SIGINT", True, 0): 0,
        ("SIGINT", True, 1.2): CODES[signal.SIGINT],
    }
    environment = {key: value for key, value in os.environ.items() if key != "LOCAL_RANK"}
    done = subprocess.run(
        [sys.executable, "-c", TWICE, json.dumps(list(cases))],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{list(map(int, cases.values()))}\n", done.stderr
    assert done.stderr.count("SIGINT: the run ends after this step, with a checkpoint") == 3


def test_a_signal_to_one_of_two_processes_ends_both_after_the_same_step(tmp_path, two_processes):
    errors = two_processes("guards.distributed_signal", tmp_path)
    assert not any(errors), errors
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


@pytest.mark.parametrize("when", ["_finalize_training", "on_epoch_end"])
def test_a_signal_after_the_last_step_is_not_answered_with_a_checkpoint(tmp_path, capfd, when):
    made = trainer(**steps(tmp_path, save_strategy="no", max_steps=2))
    if when == "on_epoch_end":
        made.add_callback(AtTheEnd())
    else:
        finalize = made._finalize_training

        def asked(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGTERM)
            return finalize(*args, **kwargs)

        made._finalize_training = asked
    made.train()
    said = capfd.readouterr().err
    assert "SIGTERM: the last step is done, and the run ends as it would; a second one" in said
    assert said.strip().splitlines()[-1] == (
        "SIGTERM came after the last step, and the run has ended as it would have without it."
    )
    assert "with a checkpoint" not in said and not list(tmp_path.glob("checkpoint-*"))


class AtTheEnd(TrainerCallback):
    """A signal when everyone has looked for one."""

    def on_epoch_end(self, args, state, control, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_between_the_last_step_and_the_end_of_its_epoch_ends_the_run_with_a_checkpoint(
    tmp_path, capfd
):
    made = trainer(**steps(tmp_path, save_strategy="no", max_steps=2))
    ended = made.interruption.on_step_end

    def then_asked(*args, **kwargs):
        ended(*args, **kwargs)
        if made.state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    made.interruption.on_step_end = then_asked
    with pytest.raises(Stopped) as stopped:
        made.train()
    assert "the run ends after this step, with a checkpoint" in capfd.readouterr().err
    assert problem(stopped.value.checkpoint) is None


FORKED = """
import os, signal, sys, time
from accelerate import Accelerator
from oprd.guards.signals import Interruption

signal.signal(signal.SIGINT, signal.default_int_handler)
interruption = Interruption(Accelerator(cpu=True), 1)
with interruption.listening():
    for number in (signal.SIGTERM, signal.SIGINT):
        if (child := os.fork()) == 0:
            os.kill(os.getpid(), number)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_process_that_was_forked_to_load_data_takes_no_signal_for_the_run():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True)
    assert done.stdout.split() == [str(-signal.SIGTERM), "0"], done.stderr
    assert "the run ends" not in done.stderr


@pytest.mark.parametrize("every", [1, 2])
def test_processes_ask_one_another_once_for_the_same_rollouts(tmp_path, monkeypatch, every):
    asked = []
    made = trainer(**steps(tmp_path, save_strategy="no", max_steps=4, updates_per_rollout=every))
    monkeypatch.setattr(made.interruption, "_agreed", lambda: asked.append(made.state.global_step))
    made.train()
    assert asked == [*range(every, 5, every), 4]  # and at the end of the epoch
