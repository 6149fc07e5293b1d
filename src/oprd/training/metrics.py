"""What a step measures: how well the models agree, and what that costs in time and memory."""

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from oprd.core.layers import LayerPair


class StepStatistics:
    """Sums over the micro-batches of a step, by name: on the device, read once a step.

    Names are the same in all processes, and a step's sums go through one reduction. They are:

        positions                            supervised positions of the representation term
        supervised                           positions that any term supervises
        cosine, student_norm, teacher_norm   [L] per layer pair, over the positions
        last_norm                            [2] of the last states of student and teacher
        loss/…                               each term's mean
        diagnostics/…                        over response tokens, and their count
        drift/…                              total over response tokens, and their count

    Args:
        pairs: the layer pairs, in the order of the statistics.
        depths: layers of the student and of the teacher.
    """

    def __init__(self, pairs: Sequence[LayerPair], depths: tuple[int, int]) -> None:
        self._pairs = tuple(pairs)
        self._depths = depths
        self._sums: dict[str, Tensor] = {}

    def add(self, sums: Mapping[str, Tensor]) -> None:
        """Add a micro-batch."""
        for name, value in sums.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def take(self, reduce: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, Tensor]:
        """The sums since the last call, over all processes by `reduce`; empty if there are none."""
        sums, self._sums = self._sums, {}
        if not sums:
            return {}
        device = sums["positions"].device
        flat = torch.cat([value.reshape(-1).to(device) for value in sums.values()])
        parts = reduce(flat).cpu().split([value.numel() for value in sums.values()])
        return {
            name: part.reshape(sums[name].shape) for name, part in zip(sums, parts, strict=True)
        }

    def broken(self, sums: Mapping[str, Tensor]) -> list[str]:
        """What was not finite: states by model and layer, or a term's loss."""
        norms: list[tuple[str, float]] = []
        for side, model in enumerate(("student", "teacher")):
            layers = [pair[side] for pair in self._pairs]
            values = sums[f"{model}_norm"].tolist() if f"{model}_norm" in sums else []
            norms += zip((f"{model} layer {layer}" for layer in layers), values, strict=False)
            if "last_norm" in sums:
                last = sums["last_norm"][side].item()
                norms.append((f"{model} layer {self._depths[side]}", last))
        found = [name for name, norm in norms if not math.isfinite(norm)]
        if not found:
            losses = (name for name in sums if name.startswith("loss/"))
            found = [name for name in losses if not sums[name].isfinite()]
        return list(dict.fromkeys(found))

    def check(self, sums: Mapping[str, Tensor], when: str) -> None:
        """Stop where something was not finite; a FloatingPointError says what and when."""
        if broken := self.broken(sums):
            what = "a loss that is" if broken[0].startswith("loss/") else "states that are"
            raise FloatingPointError(
                f"{what} not finite {when}: {', '.join(broken)}. The student was left as it was."
            )

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Supervised tokens, cosines, diagnostics and, where there are several, each term's loss.

        Cosines and diagnostics are means over positions; where there was none they are left out.
        """
        logged = {"supervised_tokens": sums["supervised"].item()}
        losses = [name for name in sums if name.startswith("loss/")]
        if len(losses) > 1:
            logged |= {name: sums[name].item() for name in losses}
        if "cosine" in sums and sums["positions"] > 0:
            means = (sums["cosine"] / sums["positions"]).tolist()
            logged["rep_cosine"] = sum(means) / len(means)
            for pair, mean in zip(self._pairs, means, strict=True):
                logged[f"rep_cosine/layer_{pair.student:02d}"] = mean
        if "drift/count" in sums and sums["drift/count"] > 0:
            logged["drift_kl"] = (sums["drift/total"] / sums["drift/count"]).item()
        count = sums.get("diagnostics/count")
        if count is not None and count > 0:
            for name in sums:
                if name.startswith("diagnostics/") and name != "diagnostics/count":
                    logged[name] = (sums[name] / count).item()
        return logged


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
