"""A run's `metrics.jsonl`: what was logged, one JSON line a time, each with its step."""

from pathlib import Path
from typing import Any

from oprd.runs.lines import append_line, begin_lines, read_lines

METRICS = "metrics.jsonl"


def begin_metrics(folder: Path, step: int) -> None:
    """Keep what a run logged up to the step from which it goes on; a new one begins with none."""
    begin_lines(folder / METRICS, step)


def append_metrics(folder: Path, step: int, logs: dict[str, Any]) -> None:
    """Add a line."""
    append_line(folder / METRICS, step, logs)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run folder's metrics; see `read_lines`.

    Raises:
        FileNotFoundError: the folder holds none.
    """
    file = folder / METRICS
    if not file.is_file():
        raise FileNotFoundError(f"{folder} is not a run folder: it holds no {METRICS}.")
    return read_lines(file)
