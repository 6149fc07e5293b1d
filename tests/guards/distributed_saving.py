"""Runs of two processes that save, go on and are refused; called by test_saving.

python -m tests.guards.distributed_saving FOLDER CASE
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from oprd.guards import saving
from oprd.runs.manifest import problem, read_manifest
from tests import tiny
from tests.training.runs import largest_difference, trainer, weights


def made(folder: Path, **options: Any) -> Any:
    defaults = {
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "optim": "adamw_torch",
        "save_strategy": "steps",
        "save_steps": 2,
        "rollout": None,
        "student": tiny.model(seed=1, attention_dropout=0.2),
    }
    return trainer(folder, **{**defaults, **options})


def main(folder: str, case: str) -> None:
    CASES[case](Path(folder))


def goes_on(folder: Path) -> None:
    """Both processes go on as if nothing had been, each with its own random numbers."""
    whole = made(folder / "whole")
    whole.train()
    found = read_manifest(folder / "whole" / "checkpoint-2")
    assert found is not None and found["processes"] == 2
    assert found["random_states"] == ["rng_state_0.pth", "rng_state_1.pth"]
    assert set(found["random_states"]) <= set(found["files"])
    resumed = made(folder / "resumed")
    resumed.train(str(folder / "whole" / "checkpoint-2"))
    assert largest_difference(weights(whole.student), weights(resumed.student)) == 0
    whole.save_model()
    assert problem(folder / "whole") is None


def waits(folder: Path) -> None:
    """A checkpoint is complete when the slower process has saved too, not before."""
    save = saving.write_manifest
    states: list[bool] = []
    with pytest.MonkeyPatch.context() as patch:

        def noted(place: Path, *args: Any) -> None:
            states.append((place / "rng_state_1.pth").exists())
            save(place, *args)

        patch.setattr(saving, "write_manifest", noted)
        run = made(folder / "run", max_steps=2)
        late = run._save_rng_state

        def slowly(place: str) -> None:
            if os.environ["RANK"] == "1":
                time.sleep(1)
            late(place)

        patch.setattr(run, "_save_rng_state", slowly)
        run.train()
    assert states == ([True] if os.environ["RANK"] == "0" else [])


def begins_together(folder: Path) -> None:
    """What a process saves is in the folder that the slower main one makes, and stays."""
    run = made(folder / "run")
    begin, place = saving.begin_checkpoint, folder / "run" / "checkpoint-0"
    with pytest.MonkeyPatch.context() as patch:

        def slowly(checkpoint: Path) -> None:
            time.sleep(1)
            begin(checkpoint)

        patch.setattr(saving, "begin_checkpoint", slowly)
        with run.checkpoints.saving():
            place.mkdir(parents=True, exist_ok=True)
            (place / f"of-rank-{os.environ['RANK']}").touch()
        run.checkpoints.wait()
    found = read_manifest(place)
    assert found is not None and list(found["files"]) == ["of-rank-0", "of-rank-1"]


def sharded(folder: Path) -> None:
    """What FSDP2 saves piece by piece, each process its own, is complete as a whole.

    Accelerate sets up FSDP on accelerators alone, so that torch's own sharding stands in for it.
    """
    mesh = init_device_mesh("cpu", (2,))
    model = tiny.model(seed=5)
    whole = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fully_shard(model, mesh=mesh)
    run = made(folder / "run", max_steps=2)

    def save(place: str) -> None:
        dcp.save(model.state_dict(), checkpoint_id=f"{place}/pytorch_model_fsdp_0")

    run._save_optimizer_and_scheduler = save
    run.train()
    saved = folder / "run" / "checkpoint-2"
    found = read_manifest(saved)
    assert found is not None and problem(saved) is None
    pieces = {name for name in found["files"] if name.startswith("pytorch_model_fsdp_0/")}
    assert {Path(name).suffix for name in pieces} >= {".distcp"} and len(pieces) == 3
    torch.distributed.barrier()
    fresh = tiny.model(seed=6)
    fully_shard(fresh, mesh=mesh)
    state = fresh.state_dict()
    dcp.load(state, checkpoint_id=str(saved / "pytorch_model_fsdp_0"))
    assert all(torch.equal(state[name].full_tensor(), whole[name]) for name in whole)
    if os.environ["RANK"] == "0":
        (saved / "pytorch_model_fsdp_0" / "__1_0.distcp").unlink()
    torch.distributed.barrier()
    assert problem(saved) == "its pytorch_model_fsdp_0/__1_0.distcp is missing"


def another(folder: Path) -> None:
    """What the main process refuses is refused by both."""
    made(folder / "run", max_steps=2).train()
    made(folder / "next", teacher=tiny.model(seed=3)).train(str(folder / "run" / "checkpoint-2"))


def damaged(folder: Path) -> None:
    made(folder / "run", max_steps=2).train()
    run = made(folder / "run")
    if os.environ["RANK"] == "0":
        (folder / "run" / "checkpoint-2" / "rng_state_1.pth").unlink()
    torch.distributed.barrier()
    run.train("auto")


def locked(folder: Path) -> None:
    made(folder / "run").train()


CASES = {
    case.__name__: case
    for case in (goes_on, waits, begins_together, sharded, another, damaged, locked)
}


if __name__ == "__main__":
    main(*sys.argv[1:])
