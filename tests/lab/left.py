"""What a process of the lab leaves behind; it imports torch alone, since each process does."""

import os
from pathlib import Path

import torch


def leave_process(name: str) -> None:
    if name == "bad":
        raise ValueError("a name that is bad")
    instructions = os.environ.get("ATEN_CPU_CAPABILITY", "all")
    Path(name).write_text(f"{os.getpid()} {torch.get_num_threads()} {instructions}")
