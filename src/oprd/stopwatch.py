"""What a step costs in time and memory."""

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class Stopwatch:
    """Seconds spent in named phases, on the device's own clock where it runs asynchronously."""

    def __init__(self, device: torch.device) -> None:
        self._asynchronous = device.type == "cuda"
        self._spans: list[tuple[str, object, object]] = []

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time a block as part of a phase."""
        start = self._mark()
        try:
            yield
        finally:
            self._spans.append((phase, start, self._mark()))

    def take(self) -> dict[str, float]:
        """Seconds by phase since the last call; waits for the device."""
        seconds: dict[str, float] = {}
        for phase, start, end in self._spans:
            seconds[phase] = seconds.get(phase, 0.0) + self._between(start, end)
        self._spans.clear()
        return seconds

    def _mark(self) -> object:
        if not self._asynchronous:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @staticmethod
    def _between(start: object, end: object) -> float:
        if isinstance(start, float) and isinstance(end, float):
            return end - start
        assert isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event)
        end.synchronize()
        return start.elapsed_time(end) / 1000


def cost_metrics(
    seconds: Mapping[str, float], tokens: float, device: torch.device
) -> dict[str, float]:
    """What a step cost, from its stopwatch; `tokens` are those of all its rollouts."""
    step, rollout, teacher = (seconds.get(name, 0.0) for name in ("step", "rollout", "teacher"))
    return {
        "seconds/rollout": rollout,
        "seconds/teacher": teacher,
        "seconds/student": step - rollout - teacher,
        "tokens_per_second": tokens / step,
        "peak_memory_gib": peak_memory_gib(device),
    }


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory so far: allocated on a CUDA device, resident of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
