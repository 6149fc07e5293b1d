"""Problems from a parquet or JSON-lines file, every row checked."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

BadRows = Literal["error", "skip"]
# What follows is GSM8K's answer.
FINAL = "####"


class Row(NamedTuple):
    """One problem before its template: earlier messages, the text of the problem, the answer."""

    before: list[dict[str, str]]
    problem: str
    gold: str


def read_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Numbered rows of a file, from 1; a line that is not JSON comes as its ValueError.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is neither parquet nor JSON lines, or is broken as a whole.
    """
    if not path.is_file():
        raise FileNotFoundError(f"task file {str(path)!r} does not exist.")
    if path.suffix == ".parquet":
        yield from enumerate(_parquet(path), start=1)
    elif path.suffix in (".jsonl", ".json"):
        for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError as error:
                    yield number, ValueError(f"not a JSON object ({error})")
    else:
        raise ValueError(f"task file {str(path)!r} must end in .parquet, .jsonl or .json.")


def parse_rows(
    numbered: Iterable[tuple[int, Any]], source: str, bad_rows: BadRows = "error"
) -> tuple[list[Row], int]:
    """Check rows and bring them into one form.

    Understood are `prompt` (text or messages) with `reward_model.ground_truth` or `answer`, and
    `problem` or `question` with `answer`.

    Args:
        numbered: rows with the numbers that messages name.
        source: what messages call their origin.
        bad_rows: `"error"` stops at the first bad row, `"skip"` counts them.

    Returns:
        The good rows, and how many were bad.

    Raises:
        ValueError: a row is bad, or no good one is left.
    """
    rows, skipped = [], 0
    for number, row in numbered:
        try:
            rows.append(_parse(row))
        except ValueError as error:
            if bad_rows == "error":
                raise ValueError(f"{source}, row {number}: {error}.") from error
            skipped += 1
    if not rows:
        raise ValueError(f"{source} has no usable row ({skipped} bad rows).")
    return rows, skipped


def file_hash(path: Path) -> str:
    """The first 12 hexadecimal digits of a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"task file {str(path)!r} is not a parquet file: {error}") from error


def _parse(row: Any) -> Row:
    if isinstance(row, ValueError):
        raise row
    if not isinstance(row, dict):
        raise ValueError(f"a row is an object, got {type(row).__name__}")
    before: list[dict[str, str]] = []
    if row.get("prompt") is not None:
        problem: Any = row["prompt"]
        if not isinstance(problem, str):
            before, problem = _messages(problem)
    else:
        problem = next((row[key] for key in ("problem", "question") if key in row), None)
    return Row(before, _text(problem, "prompt, problem or question", row), _gold(row))


def _gold(row: dict[str, Any]) -> str:
    reward = row.get("reward_model")
    gold = reward.get("ground_truth") if isinstance(reward, dict) else row.get("answer")
    if isinstance(gold, int | float) and not isinstance(gold, bool):
        gold = str(gold)
    text = _text(gold, "answer or reward_model.ground_truth", row)
    return text.rpartition(FINAL)[2].strip()


def _messages(messages: Any) -> tuple[list[dict[str, str]], Any]:
    """All messages but the last, and the content of the last one, which is the user's."""
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise ValueError(f"prompt is text or a list of messages, got {type(messages).__name__}")
    roles = [message.get("role") for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    expected = [("user", "assistant")[turn % 2] for turn in range(len(turns))]
    if turns != expected or len(turns) % 2 == 0:
        raise ValueError(
            f"the roles {roles} are not an optional system, then user and assistant in turn, "
            "user last"
        )
    for message in messages[:-1]:
        _text(message.get("content"), "content", message)
    before = [{"role": m["role"], "content": m["content"]} for m in messages[:-1]]
    return before, messages[-1].get("content")


def _text(value: Any, name: str, row: dict[str, Any]) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be text, got {value!r} among the columns {sorted(row)}")
    return value
