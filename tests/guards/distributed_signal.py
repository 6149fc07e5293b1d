"""A run of which one process gets a signal; run in two processes by test_signals."""

import os
import signal
from pathlib import Path

import pytest

from oprd.guards.signals import Stopped
from tests.guards.test_signals import Asking
from tests.training.runs import trainer


def main(folder: str) -> None:
    made = trainer(Path(folder), per_device_train_batch_size=2, max_steps=4)
    number = signal.SIGTERM if os.environ["RANK"] == "1" else 0
    made.add_callback(Asking(number, 1))
    with pytest.raises(Stopped) as stopped:
        made.train()
    assert (stopped.value.code, stopped.value.step) == (143, 2)
