import json
import os
import subprocess
import sys

import pytest
import torch

from tests.training.distributed_step import step
from tests.training.runs import largest_difference


def launch(processes, module, *arguments):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={processes}",
        "-m",
        f"tests.{module}",
        *map(str, arguments),
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)


STEPS = {
    "plain": "",
    "scaled by layer": "scale=layer",
    "scaled by layer, no response in one process": "scale=layer,empty=1",
    # An LM head of its own gets no gradient, which DDP must be told.
    "head and last block without gradient": "untied=1,layers=1",
    "no response in one process": "empty=1",
    "two terms, and no response in one process": (
        "untied=1,layers=1,output_loss=reverse_kl,empty=1,diagnostics_steps=1"
    ),
    "output loss alone": "output_loss=sampled,representation_weight=0",
    "constant prefix": "prefix_gradients=false,empty=1",
    # What users get: with checkpointing Transformers takes it that all weights have a gradient.
    "a head without gradient, checkpointed": "untied=1,gradient_checkpointing=true,max_steps=2",
    "blocks without gradient, checkpointed": "layers=1,gradient_checkpointing=true,max_steps=2",
    "pairs that leave blocks out, checkpointed": (
        'layer_pairing="1:1",gradient_checkpointing=true,max_steps=2'
    ),
    "rollouts of two steps written at once": "rollouts_ahead=2,max_steps=4",
    "rollouts of earlier steps": "replay=8,max_steps=4",
    "rollouts of earlier steps, dropped as the student drifts": (
        "replay=8,max_drift_kl=0.00001,max_steps=4"
    ),
    "prompts drawn by the distance on them": "curriculum=error,max_steps=4",
    "prompts drawn by the distance on them, and rollouts of earlier steps": (
        "curriculum=error,replay=16,gradient_accumulation_steps=2,max_steps=4"
    ),
    "prompts drawn by the distance on them, and responses that the teacher begins": (
        "curriculum=error,writes=1,top_k=1,teacher_prefix=0.5,teacher_prefix_length=3,max_steps=3"
    ),
    "without the responses that have ended": "writes=1,top_k=1,leave_ended=true,max_steps=2",
    "responses that the teacher begins": (
        "writes=1,top_k=1,teacher_prefix=0.5,teacher_prefix_length=3,max_steps=2"
    ),
    "a teacher's own prompts": "hints=1,output_loss=reverse_kl",
    "a teacher's own tokens": "teacher_tokenizer=own,positions=all",
    "a teacher's own tokens, their probabilities": (
        "teacher_tokenizer=own,output_loss=reverse_kl,reduction=token"
    ),
    "a teacher's own tokens, and no response in one process": "teacher_tokenizer=own,empty=1",
    "a teacher's own tokens, the mean over tokens": "teacher_tokenizer=own,reduction=token",
    "several teachers": "several=mixed,output_loss=reverse_kl",
    "several teachers, one an update": "several=pure,max_steps=2",
    "past the teacher": "extrapolation=1.5,hints=1",
    "past several teachers": "extrapolation=1.5,several=mixed",
    "a moving average": "hints=1,teacher_source=ema,ema_decay=0.5,max_steps=3",
    "layers that were measured": "layer_pairing=similarity,teacher_layers=5",
}


@pytest.fixture(scope="module")
def steps(tmp_path_factory, two_processes):
    """Weights and loss after a step of four rollouts, by the processes that shared them."""
    folder = tmp_path_factory.mktemp("steps")
    errors = two_processes("training.distributed_step", folder, 2, *STEPS.values())
    assert not any(errors), errors
    alone = {options: step(folder, 4, options) for options in STEPS.values()}
    return {1: alone, 2: torch.load(folder / "results.pt", weights_only=True)}


def test_rollouts_that_the_student_has_left_behind_are_dropped_there(steps):
    name = "rollouts of earlier steps"
    kept, dropped = (STEPS[case] for case in (name, f"{name}, dropped as the student drifts"))
    both = (steps[1][options]["weights"] for options in (kept, dropped))
    assert largest_difference(*both) > 1e-3


@pytest.mark.parametrize("options", STEPS.values(), ids=STEPS)
def test_two_processes_take_the_step_of_one(steps, options):
    one, two = steps[1][options], steps[2][options]
    assert largest_difference(one["weights"], two["weights"]) < 1e-6
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)


def test_a_broken_teacher_in_one_process_stops_both(tmp_path, two_processes):
    for error in two_processes("training.distributed_step", tmp_path, 2, "broken=1"):
        assert "FloatingPointError: states that are not finite before the update of step 1" in error
        assert "teacher layer 2, teacher layer 3" in error


def test_a_broken_gradient_in_one_process_stops_both(tmp_path, two_processes):
    for error in two_processes("training.distributed_step", tmp_path, 2, "nan_gradient=1"):
        assert "FloatingPointError: the gradient is not finite at step 1" in error


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"output_loss": "reverse_kl"},
        {"prefix_gradients": False},
        {"several": True, "output_loss": "reverse_kl"},
        {"extrapolation": 1.5},
        {"several": True, "extrapolation": 1.5},
        {"several": True, "on_base": True},
    ],
)
def test_two_processes_under_fsdp2_have_the_gradients_of_one(options):
    done = launch(2, "training.fsdp2_gradients", json.dumps(options))
    assert done.returncode == 0, done.stderr[-3000:]
