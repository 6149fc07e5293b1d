"""What a process of the lab leaves behind; it imports torch alone, since each process does."""

import multiprocessing
import os
import time
from pathlib import Path

import torch

from lab.processes import end_with_parent


def leave_process(name: str) -> None:
    if name == "bad":
        raise ValueError("a name that is bad")
    instructions = os.environ.get("ATEN_CPU_CAPABILITY", "all")
    Path(name).write_text(f"{os.getpid()} {torch.get_num_threads()} {instructions}")


def start_another(name: str) -> None:
    multiprocessing.get_context("spawn").Process(target=_last, args=(name,)).start()
    time.sleep(60)


def _last(name: str) -> None:
    end_with_parent()
    Path(name).write_text(str(os.getpid()))
    time.sleep(60)
