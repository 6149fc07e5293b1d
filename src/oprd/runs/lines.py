"""Files of a run that grow with its steps: one JSON object a line, each with its step."""

import json
import sys
from pathlib import Path
from typing import Any, TypeGuard

from oprd.runs.atomic import written_whole
from oprd.secrets import masked
from oprd.text import parse_json

# Beyond it no number of a step is one.
STEPS = 2**53


def begin_lines(file: Path, step: int) -> None:
    """Keep what a run wrote up to the step from which it goes on; a new one begins with none."""
    kept = [line for line in read_lines(file) if line["step"] <= step] if step > 0 else []
    with written_whole(file) as whole:
        whole.write_text("".join(json.dumps(line) + "\n" for line in kept))


def append_line(file: Path, step: int, content: dict[str, Any]) -> None:
    """Add a line, without secrets."""
    with file.open("a") as opened:
        opened.write(masked(json.dumps({"step": step, **content})) + "\n")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The lines that can be read, none where there is no file.

    One that a crash cut off is left out, and so is one that is no object or has no step.
    """
    if not file.is_file():
        return []
    found = []
    for line in file.read_bytes().split(b"\n"):
        try:
            content = parse_json(line)
        except ValueError:
            continue
        step = content.get("step") if isinstance(content, dict) else None
        if type(step) is int and 0 <= step < STEPS:
            found.append(content)
    return found


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    # Whole numbers in JSON have no bound, so that one may be beyond every float.
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max
