import json
import os
import subprocess
import sys

import pytest
import torch

from tests.training.runs import largest_difference


def launch(processes, module, *arguments):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={processes}",
        "-m",
        f"tests.training.{module}",
        *map(str, arguments),
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)


def step(folder, processes, batch_size, options=""):
    """The weights and the loss after one step of 4 rollouts, over so many processes."""
    folder.mkdir()
    done = launch(processes, "distributed_step", folder, batch_size, options)
    assert done.returncode == 0, done.stderr[-3000:]
    result = torch.load(folder / "result.pt", weights_only=True)
    return result["weights"], result["loss"]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param("", id="plain"),
        # An LM head of its own gets no gradient, which DDP must be told.
        pytest.param("untied=1,layers=1", id="head and last block without gradient"),
        pytest.param("empty=1", id="no response in one process"),
        pytest.param(
            "untied=1,layers=1,output_loss=reverse_kl,empty=1,diagnostics_steps=1",
            id="two terms, and no response in one process",
        ),
        pytest.param("output_loss=sampled,representation_weight=0", id="output loss alone"),
        pytest.param("prefix_gradients=false,empty=1", id="constant prefix"),
    ],
)
def test_two_processes_take_the_step_of_one(tmp_path, options):
    one, loss = step(tmp_path / "one", 1, 4, options)
    two, loss_of_two = step(tmp_path / "two", 2, 2, options)
    assert largest_difference(one, two) < 1e-6
    assert loss_of_two == pytest.approx(loss, rel=1e-5)


def test_a_broken_teacher_in_one_process_stops_both(tmp_path):
    done = launch(2, "distributed_step", tmp_path, 2, "broken=1")
    assert done.returncode != 0
    assert (
        done.stderr.count(
            "FloatingPointError: states that are not finite before the update of step 1"
        )
        == 2
    )
    assert "teacher layer 2, teacher layer 3" in done.stderr


def test_a_broken_gradient_in_one_process_stops_both(tmp_path):
    done = launch(2, "distributed_step", tmp_path, 2, "nan_gradient=1")
    assert done.returncode != 0
    assert done.stderr.count("FloatingPointError: the gradient is not finite at step 1") == 2


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"output_loss": "reverse_kl"}, {"prefix_gradients": False}])
def test_two_processes_under_fsdp2_have_the_gradients_of_one(options):
    done = launch(2, "fsdp2_gradients", json.dumps(options))
    assert done.returncode == 0, done.stderr[-3000:]
