"""The processes that the lab computes in."""

import multiprocessing
import os
import threading
from multiprocessing.context import SpawnContext

import torch


def adding_alike() -> SpawnContext:
    """What starts processes in which the same seed gives the same numbers where libraries agree.

    They depend on the order of sums, which several threads and the widest instructions change.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        os.environ["ATEN_CPU_CAPABILITY"] = "avx2"
    return multiprocessing.get_context("spawn")


def end_with_parent() -> None:
    """Have this process end when the one that started it does, be that killed.

    Otherwise a worker of a queue that was killed goes on, beside those of the next one.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "the first process has none to end with"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
