"""A run's folder as others find it: what it holds, how far the run is, whether it is one at all.

Nothing is refused here: a folder that is empty, another's, damaged, cut off or still being written
says so in its state, so that a report on many runs shows each as what it is.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from oprd.runs.lines import is_number, read_lines
from oprd.runs.lock import Holder, holder
from oprd.runs.metrics import METRICS
from oprd.runs.record import RECORD, read_record
from oprd.runs.samples import PositionCurve, Sample, read_positions, read_samples
from oprd.runs.warned import read_warnings

State = Literal["finished", "running", "cut off", "empty", "not a run", "damaged"]
# Of a run on another machine only its log is seen: where the last line is older than so many of its
# intervals, or than this many seconds, and does not say that it ended, it is taken to be cut off.
INTERVALS, LEAST_SECONDS = 20, 120.0
# What the trainer logs at its end; a run that is gone on with ends several times.
END = "train_runtime"
PHASES = ("seconds/rollout", "seconds/teacher", "seconds/student")


@dataclass(frozen=True)
class RunFolder:
    """What stands in a run's folder.

    Attributes:
        path: of the folder.
        state: how far the run is; see the module.
        note: the state in a sentence.
        record: `run.json`, empty where there is none.
        metrics: the lines of `metrics.jsonl`.
        samples: rollouts that were kept.
        positions: the cosine by position, by step.
        warnings: steps and texts.
    """

    path: Path
    state: State
    note: str
    record: Mapping[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    positions: list[PositionCurve] = field(default_factory=list)
    warnings: list[tuple[int, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.resolve().name or str(self.path)

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the record."""
        found = self.record.get("settings")
        return dict(found) if isinstance(found, Mapping) else {}

    @property
    def step(self) -> int:
        """The last that was logged."""
        return max((line["step"] for line in self.metrics), default=0)

    @property
    def steps(self) -> int | None:
        """How many it is to make, None where that cannot be told."""
        return total_steps(self.settings, self.metrics)

    def seconds_left(self) -> float | None:
        """Until its last step at the pace of its latest ones, None where that cannot be told."""
        pace, steps = seconds_per_step(self.metrics), self.steps
        return None if pace is None or steps is None else max(0, steps - self.step) * pace


def read_run(path: Path) -> RunFolder:
    """Read a folder, whatever it holds.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{str(path)!r}: there is no such run folder.")
    try:
        record = read_record(path) or {}
    except (ValueError, OSError) as error:
        return RunFolder(path, "damaged", f"Its run.json cannot be read: {error}")
    file = path / METRICS
    metrics = read_lines(file)
    if not record and not metrics:
        return _no_run(path)
    idle = max(0.0, time.time() - file.stat().st_mtime) if file.is_file() else math.inf
    steps = total_steps(record.get("settings"), metrics)
    state, note = _state(metrics, steps, holder(path), idle)
    return RunFolder(
        path,
        state,
        note,
        record,
        metrics,
        read_samples(path),
        read_positions(path),
        read_warnings(path),
    )


def total_steps(settings: Any, metrics: list[dict[str, Any]]) -> int | None:
    """How many steps a run is to make, by its settings or by how much of an epoch it has made."""
    settings = settings if isinstance(settings, Mapping) else {}
    steps, epochs = settings.get("max_steps"), settings.get("num_train_epochs")
    if isinstance(steps, int) and is_number(steps) and steps > 0:
        return int(steps)
    for line in reversed(metrics):
        epoch = line.get("epoch")
        if is_number(epoch) and epoch > 0 and line["step"] > 0 and is_number(epochs):
            found = line["step"] * epochs / epoch
            return max(line["step"], round(found)) if math.isfinite(found) else None
    return None


def seconds_per_step(metrics: list[dict[str, Any]], latest: int = 20) -> float | None:
    """What a step takes, as the mean over the latest lines that say so."""
    told = [sum(line[phase] for phase in PHASES) for line in metrics if _timed(line)][-latest:]
    return sum(told) / len(told) if told else None


def _timed(line: Mapping[str, Any]) -> bool:
    return all(is_number(line.get(phase)) for phase in PHASES)


def _no_run(path: Path) -> RunFolder:
    if next(path.iterdir(), None) is None:
        return RunFolder(path, "empty", "The folder is empty.")
    return RunFolder(
        path, "not a run", f"The folder holds no run: neither {RECORD} nor a readable {METRICS}."
    )


def _state(
    metrics: list[dict[str, Any]], steps: int | None, held: Holder | None, idle: float
) -> tuple[State, str]:
    step = max((line["step"] for line in metrics), default=0)
    of = f"step {step:,}" + (f" of {steps:,}" if steps else "")
    # After its last end a run that is gone on with logs losses again.
    told = [END in line for line in metrics if END in line or "loss" in line]
    if told and told[-1] and held != "alive":
        if steps is not None and step < steps:
            return "finished", f"It ended at {of}, before its last step."
        return "finished", f"{step:,} steps."
    logged = sorted({line["step"] for line in metrics})
    apart = logged[-1] - logged[-2] if len(logged) > 1 else 1
    patience = max(LEAST_SECONDS, INTERVALS * apart * (seconds_per_step(metrics) or 0))
    if held == "alive" or (held == "not seen" and idle < patience):
        return "running", f"At {of}."
    return "cut off", f"It ended without a word, at {of}."
