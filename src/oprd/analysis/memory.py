"""How much memory a block of code holds at most, beyond what was there before it."""

import gc
import threading
from collections.abc import Callable

import psutil
import torch

SECONDS_BETWEEN_LOOKS = 0.002
FRESH_PROCESS = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
"""Environment of a process whose resident memory is measured on glibc: blocks that are freed would
stay resident otherwise and hide in the baseline."""


def transient_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The peak of memory while `run` runs, above what is held before.

    Allocated memory on a CUDA device; elsewhere the resident memory of this process, which should
    have started with `FRESH_PROCESS` in its environment.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - held
    with PeakWatch() as watch:
        run()
    return watch.peak - watch.baseline


class PeakWatch:
    """The largest resident memory of this process while a block runs.

    Attributes:
        baseline: bytes when the block began.
        peak: the most bytes seen so far.
    """

    def __enter__(self) -> "PeakWatch":
        self._process = psutil.Process()
        self.baseline = self.peak = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(SECONDS_BETWEEN_LOOKS):
            self.peak = max(self.peak, self._process.memory_info().rss)
