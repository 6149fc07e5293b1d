"""A run's `warnings.jsonl`: what it was warned of, one line a warning, each with its step."""

from pathlib import Path

from oprd.runs.lines import append_line, begin_lines, read_lines

WARNINGS = "warnings.jsonl"


def begin_warnings(folder: Path, step: int) -> None:
    """Keep those up to the step from which a run goes on; a new one begins with none."""
    begin_lines(folder / WARNINGS, step)


def append_warning(folder: Path, step: int, text: str) -> None:
    """Add a warning."""
    append_line(folder / WARNINGS, step, {"text": text})


def read_warnings(folder: Path) -> list[tuple[int, str]]:
    """Steps and texts, none where nothing was warned of."""
    return [(line["step"], str(line.get("text", ""))) for line in read_lines(folder / WARNINGS)]
