"""What a step measures: how well the states agree, and what they cost in time and memory."""

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from oprd.core.layers import LayerPair
from oprd.core.representation import LayersLoss


class StepStatistics:
    """Sums over the micro-batches of a step: on the device, read once a step.

    Args:
        pairs: the layer pairs, in the order of the statistics.
    """

    def __init__(self, pairs: Sequence[LayerPair]) -> None:
        self._pairs = tuple(pairs)
        self._sums: Tensor | None = None

    def add(self, result: LayersLoss, positions: Tensor) -> None:
        """Add a micro-batch; `positions` is its number of supervised positions, a scalar tensor."""
        per_layer = torch.cat([result.cosine, result.student_norm, result.teacher_norm]).float()
        sums = torch.cat([per_layer, positions.to(per_layer).reshape(1)])
        self._sums = sums if self._sums is None else self._sums + sums

    def take(self) -> Tensor | None:
        """The sums [3L + 1] of this process since the last call; None where there were none."""
        sums, self._sums = self._sums, None
        return sums

    def broken(self, sums: Tensor) -> list[str]:
        """Where states were not finite, given the sums over all processes."""
        _, student, teacher, _ = self._split(sums)
        found = []
        for name, norms in (("student", student), ("teacher", teacher)):
            for pair, norm in zip(self._pairs, norms.isfinite().tolist(), strict=True):
                layer = pair.student if name == "student" else pair.teacher
                if not norm:
                    found.append(f"{name} layer {layer}")
        return list(dict.fromkeys(found))

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Supervised tokens and cosines, given the sums over all processes.

        A cosine is a mean over positions; where no position was supervised there is none.
        """
        cosine, _, _, positions = self._split(sums)
        logged = {"supervised_tokens": positions.item()}
        if positions > 0:
            means = (cosine / positions).tolist()
            logged["rep_cosine"] = sum(means) / len(means)
            for pair, mean in zip(self._pairs, means, strict=True):
                logged[f"rep_cosine/layer_{pair.student:02d}"] = mean
        return logged

    def _split(self, sums: Tensor) -> tuple[Tensor, ...]:
        count = len(self._pairs)
        return sums.split([count, count, count, 1])


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


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory so far: allocated on a CUDA device, resident of the process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
