"""A run whose main process has no room for a checkpoint; run in two processes by test_space."""

import os
from pathlib import Path

import pytest

from oprd.runs import space
from tests.training.runs import trainer


def main(folder: str) -> None:
    made = trainer(Path(folder), per_device_train_batch_size=2, save_strategy="steps", save_steps=1)
    before, rank = space.free_bytes, os.environ["RANK"]
    space.free_bytes = lambda place: 1000
    said = "another process has no room" if rank == "1" else "bytes, and 1,000 are free"
    try:
        with pytest.raises(OSError, match=said):
            made.train()
    finally:
        space.free_bytes = before
