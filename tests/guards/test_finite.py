import math
import traceback

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from oprd.guards.broken import BrokenBatch, batch_files
from oprd.models.finite import first_broken_gradient, first_broken_parameter
from tests import tiny
from tests.training import runs
from tests.training.runs import largest_difference, trainer, weights
from tests.training.test_resume import steps

DOWN = "model.layers.1.mlp.down_proj.weight"


def broken(seed, value=math.nan):
    model = tiny.model(seed=seed)
    model.get_parameter(DOWN).data[0, 0] = value
    return model


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_the_message_names_step_layers_rank_and_tensor(tmp_path, role):
    models = {"student": 1, "teacher": 2}
    made = trainer(tmp_path, **{role: broken(models[role])})
    said = (
        f"states that are not finite before the update of step 1: {role} layer 2, {role} layer 3 "
        "on rank 0. The student was left as it was. Not finite are weights: "
        f"the {role}'s {DOWN} on rank 0. Its batch is kept: oprd doctor --replay "
    )
    with pytest.raises(FloatingPointError) as stopped:
        made.train()
    assert str(stopped.value) == f"{said}{tmp_path}/broken/step-000001"


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_is_named_by_its_parameter(tmp_path, max_grad_norm, value):
    student = tiny.model(seed=1)
    student.get_parameter(DOWN).register_hook(lambda grad: grad * value)
    made = trainer(tmp_path, student=student, max_grad_norm=max_grad_norm)
    with pytest.raises(FloatingPointError, match=rf"not finite at step 1 .*: {DOWN} on rank 0\."):
        made.train()
    assert largest_difference(weights(student), weights(tiny.model(seed=1))) == 0


@pytest.mark.parametrize("max_grad_norm", [0.0, 1e-3, 1e3, math.inf])
def test_gradients_are_clipped_as_accelerate_clips_them(tmp_path, max_grad_norm, monkeypatch):
    def run(folder):
        made = trainer(**steps(folder, max_grad_norm=max_grad_norm, max_steps=2))
        made.train()
        return weights(made.model), [log.get("grad_norm") for log in made.state.log_history]

    ours, norms = run(tmp_path / "ours")
    monkeypatch.setattr("oprd.guards.finite.Finite.clip", lambda *args: None)
    theirs, their_norms = run(tmp_path / "theirs")
    assert norms == their_norms
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_batch_is_kept_with_the_student_that_met_it(tmp_path):
    made = trainer(
        **{**steps(tmp_path), "rollout": runs.scripted},
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
    )
    met = []

    def broken_at_2(prompt_ids):
        if made.state.global_step == 2:
            made._teacher.reader.model.get_parameter(DOWN).data[0, 0] = math.nan
            met.append(weights(made.model))
        return [runs.scripted(ids) for ids in prompt_ids]

    made.rollouts.write = broken_at_2
    with pytest.raises(FloatingPointError, match="step 3"):
        made.train()
    folder = tmp_path / "broken" / "step-000003"
    (file,) = batch_files(folder)
    batch = BrokenBatch.load(file)
    assert (batch.step, batch.rank, len(batch.inputs)) == (3, 0, 2)
    assert "teacher layer 2" in batch.said
    for read, trained in zip(batch.inputs, made._buffered_inputs, strict=True):
        assert torch.equal(read["completion_ids"], trained["completion_ids"])
    kept = type(made.model).from_pretrained(folder / "student")
    assert largest_difference(weights(kept), met[0]) == 0


def test_a_student_that_is_broken_itself_is_not_kept(tmp_path):
    with pytest.raises(FloatingPointError):
        trainer(tmp_path, student=broken(1)).train()
    assert not (tmp_path / "broken" / "step-000001" / "student").exists()


def test_a_batch_that_finds_no_room_does_not_hide_what_broke(tmp_path, monkeypatch):
    monkeypatch.setattr("oprd.runs.space.free_bytes", lambda folder: 10)
    with pytest.raises(FloatingPointError, match=r"teacher layer 2.*could not be kept.*10 are fr"):
        trainer(tmp_path, teacher=broken(2)).train()


def test_an_evaluation_that_is_broken_names_its_step_and_keeps_no_training_batch(tmp_path):
    made = trainer(tmp_path, teacher=broken(2), eval_prompts=runs.PROMPTS[:2])
    with pytest.raises(FloatingPointError, match="in evaluation after step 0: teacher layer 2"):
        made.evaluate()
    assert not (tmp_path / "broken").exists()


def test_a_rate_that_is_too_high_in_the_search_for_one_keeps_no_batch(tmp_path):
    with pytest.raises(FloatingPointError, match="teacher layer 2"):
        trainer(tmp_path, teacher=broken(2), learning_rate="auto", optim="adamw_torch").train()
    assert not (tmp_path / "broken").exists()


class Waits(TorchDispatchMode):
    """Counts what would wait for a device: numbers that are read from tensors."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            # Transformers reads whether there is padding, whatever is trained.
            files = {frame.filename for frame in traceback.extract_stack()}
            self.count += not any(file.endswith("masking_utils.py") for file in files)
        return function(*args, **(kwargs or {}))


def test_looking_at_a_micro_batch_does_not_wait_for_the_device(tmp_path):
    """Whatever waits in a step does so once, however many micro-batches it has."""

    def waits(accumulated):
        made = trainer(
            tmp_path / str(accumulated),
            per_device_train_batch_size=1,
            gradient_accumulation_steps=accumulated,
            max_steps=1,
        )
        assert not made.args.logging_nan_inf_filter
        counted = []
        loss = made.compute_loss

        def counting(*args, **kwargs):
            with Waits() as found:
                result = loss(*args, **kwargs)
            counted.append(found.count)
            return result

        made.compute_loss = counting
        made.train()
        return counted

    *early, last = waits(4)
    assert sum(early) == 0
    assert [last] == waits(1)


@pytest.mark.parametrize("case", ["broken=1", "nan_gradient=1"])
def test_both_of_two_processes_say_on_which_rank_it_was(tmp_path, two_processes, case):
    for error in two_processes("training.distributed_step", tmp_path, 2, case):
        said = error.strip().splitlines()[-1]
        if case == "broken=1":
            assert "teacher layer 2, teacher layer 3 on rank 1. " in said
            assert f"the teacher's {DOWN} on rank 1. Its batch is kept: " in said
        else:
            # The mean over processes is broken in both.
            assert "embed_tokens.weight on rank 0 and 1. " in said
    kept = sorted(path.name for path in (tmp_path / "broken" / "step-000001").iterdir())
    assert kept == ["rank-0.safetensors", "rank-1.safetensors", "student"]


def test_a_batch_that_one_of_two_processes_cannot_keep_keeps_none_waiting(tmp_path, two_processes):
    """The student is saved by both or by none."""
    for error in two_processes("training.distributed_step", tmp_path, 2, "broken=1,unkept=1"):
        said = error.strip().splitlines()[-1]
        assert said.startswith("FloatingPointError: ") and "teacher layer 2" in said
        assert said.endswith("Its batch could not be kept: cannot be written.")
    kept = sorted(path.name for path in (tmp_path / "broken" / "step-000001").iterdir())
    assert kept == ["rank-0.safetensors"]


def test_looking_at_weights_and_gradients_waits_for_the_device_once():
    student = broken(1)
    for parameter in student.parameters():
        parameter.grad = torch.ones_like(parameter)
    student.get_parameter(DOWN).grad[0, 0] = math.inf
    student.get_parameter("model.layers.2.mlp.down_proj.weight").data[0, 0] = math.nan
    for look in (first_broken_parameter, first_broken_gradient):
        with Waits() as found:
            assert look(student) == DOWN
        assert found.count <= 1, look
