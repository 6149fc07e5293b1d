"""What a process of the lab leaves behind; it imports torch alone, since each process does."""

import os
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch


def leave_process(name: str) -> None:
    if name == "bad":
        raise ValueError("a name that is bad")
    instructions = os.environ.get("ATEN_CPU_CAPABILITY", "all")
    Path(name).write_text(f"{os.getpid()} {torch.get_num_threads()} {instructions}")


def leave_and_wait(name: str) -> None:
    leave_process(name)
    time.sleep(600)


def start_queues(folder: str) -> None:
    """Have one worker of each kind wait."""
    from lab import queue

    threading.Thread(target=queue.each, args=(leave_and_wait, [f"{folder}/report"], 1)).start()
    queue.finish(partial(_plan, f"{folder}/run"), 1)


def _plan(name: str) -> list[SimpleNamespace]:
    """Something is lacking; the worker, who is the second to ask, waits."""
    asked = Path(f"{name}.asked")
    if asked.exists():
        leave_and_wait(name)
    asked.touch()
    return [SimpleNamespace(finished=False)]
