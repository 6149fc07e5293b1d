import json
import os
import stat
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import save_file

from oprd import OPRDConfig
from oprd.guards.broken import BrokenBatch, batch_files, objective_at
from tests.training.runs import settings


def test_the_objective_of_a_step_has_the_weights_of_that_step(tmp_path):
    crossing = {
        "output_loss": "topk",
        "output_loss_kwargs": {"k": 4},
        "representation_weight": {"from": 1, "to": 0, "steps": 4},
        "output_weight": {"from": 0, "to": 2, "steps": 4},
    }
    made = settings(tmp_path, **crossing, max_steps=8)
    begun, half, done = (objective_at(made, step) for step in (0, 2, 6))
    assert (begun["representation_weight"], begun["output_loss"]) == (1, "none")
    assert (half["representation_weight"], half["output_weight"]) == (0.5, 1.0)
    assert (done["representation_weight"], done["output_loss"]) == (0, "topk")
    # Each is settings of its own, of a run of any length.
    for found in (begun, half, done):
        assert OPRDConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, **found)


@pytest.fixture
def batch():
    inputs = [
        {"prompt_ids": torch.arange(6).reshape(2, 3).T, "mask": torch.ones(2, 3, dtype=torch.bool)},
        {"prompt_ids": torch.zeros(1, 3, dtype=torch.long), "kept": {"not": "a tensor"}},
    ]
    return BrokenBatch(
        inputs,
        step=7,
        rank=1,
        said="states",
        settings={"bridge": None, "scale": "none"},
        pairs=[(1, 2)],
        mean_squares={"": {1: 0.5}},
    )


def test_a_batch_is_read_as_it_was_written_without_what_is_no_tensor(tmp_path, batch):
    path = batch.save(tmp_path / "step-000007")
    assert batch_files(tmp_path / "step-000007") == [path]
    read = BrokenBatch.load(path)
    assert {k: v for k, v in asdict(read).items() if k not in ("inputs", "pairs")} == {
        k: v for k, v in asdict(batch).items() if k not in ("inputs", "pairs")
    }
    assert read.pairs == [[1, 2]]
    for found, written in zip(read.inputs, batch.inputs, strict=True):
        tensors = {k: v for k, v in written.items() if isinstance(v, torch.Tensor)}
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_micro_batches_keep_their_order(tmp_path, batch):
    inputs = [{"n": torch.tensor([number])} for number in range(12)]
    read = BrokenBatch.load(BrokenBatch(**{**vars(batch), "inputs": inputs}).save(tmp_path))
    assert [int(found["n"]) for found in read.inputs] == list(range(12))


@pytest.mark.parametrize("content", ["cut", "other", "facts", "text"])
def test_what_is_no_batch_is_refused_by_name(tmp_path, batch, content):
    path = batch.save(tmp_path)
    if content == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    elif content == "text":
        path.write_text("text")
    else:
        facts = {"batch": json.dumps({"step": 1})} if content == "facts" else None
        save_file({"0/a": torch.ones(1)}, path, facts)
    with pytest.raises(ValueError, match=f"{path} is no batch that a run kept, or damaged"):
        BrokenBatch.load(path)


def test_a_place_without_a_batch_is_named(tmp_path):
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=f"{place}' holds no batch that a run kept"):
            batch_files(place)


def test_what_a_batch_that_is_kept_holds_is_not_copied(tmp_path):
    class Kept:
        def __deepcopy__(self, memo):
            raise AssertionError("copied")

    batch = BrokenBatch([{"ids": torch.ones(1), "kept": Kept()}], 1, 0, "", {}, [])
    assert BrokenBatch.load(batch.save(tmp_path)).step == 1


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660)])
def test_a_batch_can_be_read_by_whom_the_umask_lets(tmp_path, batch, umask, mode):
    before = os.umask(umask)
    try:
        path = batch.save(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
