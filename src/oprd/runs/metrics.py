"""A run's `metrics.jsonl`: what was logged, one JSON line a time, each with its step."""

import json
from pathlib import Path
from typing import Any

from oprd.runs.atomic import written_whole
from oprd.secrets import masked

METRICS = "metrics.jsonl"


def begin_metrics(folder: Path, step: int) -> None:
    """Keep what a run logged up to the step from which it goes on; a new one begins with none."""
    kept = []
    if step > 0 and (folder / METRICS).exists():
        kept = [line for line in read_metrics(folder) if line["step"] <= step]
    with written_whole(folder / METRICS) as file:
        file.write_text("".join(json.dumps(line) + "\n" for line in kept))


def append_metrics(folder: Path, step: int, logs: dict[str, Any]) -> None:
    """Add a line."""
    with (folder / METRICS).open("a") as file:
        file.write(masked(json.dumps({"step": step, **logs})) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run folder's metrics; one that a crash cut off is left out.

    Raises:
        FileNotFoundError: the folder holds none.
    """
    file = folder / METRICS
    if not file.is_file():
        raise FileNotFoundError(f"{folder} is not a run folder: it holds no {METRICS}.")
    found = []
    for line in file.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found
