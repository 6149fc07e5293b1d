"""Samples on disk: a header line, then one JSON line a sample, written as they are made.

A file that was cut anywhere keeps its complete lines, so that an evaluation goes on with the
(problem, sample) pairs that are missing.
"""

import fcntl
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

from oprd.evaluation.grading import Grade, Status

FORMAT = 1
# What may differ between the runs that fill one file.
FREE_KEYS = frozenset({"versions", "batch_size", "device"})


@dataclass(frozen=True)
class Record:
    """One sample and its verdict. `seconds` is its share of its batch's time."""

    problem: str
    sample: int
    ids: list[int]
    text: str
    finish_reason: str
    gold: str
    extracted: str | None
    status: Status
    correct: bool
    seconds: float

    @property
    def pair(self) -> tuple[str, int]:
        """The key of a record within its file."""
        return self.problem, self.sample


def final_grade(grade: Grade, finish_reason: str) -> Grade:
    """The grade of a sample: one that was cut and is not correct failed because it was cut.

    A response that stated the right answer before the limit stays correct.
    """
    if finish_reason == "length" and not grade.correct:
        return Grade(False, "truncated", grade.extracted)
    return grade


class RecordFile:
    """The file of one evaluation, opened for appending and locked against a second writer.

    Args:
        path: created with its folders where it does not exist.
        header: what the samples depend on; an existing file must have been written under the same.

    Attributes:
        records: what the file holds.

    Raises:
        ValueError: the file belongs to another evaluation, or is broken before its last line.
        OSError: another process writes to it.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        try:
            self._lock()
            found, self.records, complete = _parse(path)
            self._file.truncate(complete)
            if found is None:
                self._write([_header_row(header)])
            else:
                _check_same(path, found, header)
        except BaseException:
            self._file.close()
            raise

    def append(self, records: Iterable[Record]) -> None:
        """Add samples; they are with the operating system when this returns."""
        added = list(records)
        self._write(asdict(record) for record in added)
        self.records.extend(added)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OSError(f"{self.path} is being written by another process.") from error

    def _write(self, rows: Iterable[dict[str, Any]]) -> None:
        self._file.write(b"".join(_line(row) for row in rows))
        self._file.flush()


def read_records(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """The header and the samples of a file; a cut last line is passed over.

    Raises:
        ValueError: there is no header, or a line before the last is broken.
    """
    header, records, _ = _parse(path)
    if header is None:
        raise ValueError(f"{path} holds no evaluation: its header line is missing.")
    return header, records


def rewrite_records(path: Path, header: dict[str, Any], records: Iterable[Record]) -> None:
    """Replace a file's contents in one step: the old file stays until the new one is complete."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.writelines(_line(row) for row in [_header_row(header), *map(asdict, records)])
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _header_row(header: dict[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, **header}


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _parse(path: Path) -> tuple[dict[str, Any] | None, list[Record], int]:
    """Header, records, and how many bytes of complete lines the file begins with."""
    content = path.read_bytes()
    lines = content.split(b"\n")
    rows: list[dict[str, Any]] = []
    complete = 0
    for number, line in enumerate(lines[:-1], start=1):
        try:
            rows.append(_checked(json.loads(line), is_header=number == 1))
        except ValueError as error:
            if number == len(lines) - 1:
                break
            raise ValueError(f"{path}, line {number}: {error}") from error
        complete += len(line) + 1
    records = [Record(**row) for row in rows[1:]]
    pairs = [record.pair for record in records]
    if len(set(pairs)) < len(pairs):
        twice = next(pair for pair in pairs if pairs.count(pair) > 1)
        raise ValueError(f"{path} holds problem {twice[0]!r}, sample {twice[1]} twice.")
    header = {key: value for key, value in rows[0].items() if key != "format"} if rows else None
    return header, records, complete


def _checked(row: Any, is_header: bool) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"a line holds a JSON object, got {type(row).__name__}.")
    if is_header:
        if row.get("format") != FORMAT:
            raise ValueError(f"format {row.get('format')!r} is not {FORMAT}.")
        return row
    expected = {f.name for f in fields(Record)}
    if row.keys() != expected:
        raise ValueError(f"fields {sorted(row.keys() ^ expected)} are missing or unknown.")
    if row["status"] not in get_args(Status):
        raise ValueError(f"status {row['status']!r} is unknown.")
    return row


def _check_same(path: Path, found: dict[str, Any], header: dict[str, Any]) -> None:
    keys = (header.keys() | found.keys()) - FREE_KEYS
    for key in sorted(keys):
        if found.get(key) != header.get(key):
            raise ValueError(
                f"{path} was written with {key}={found.get(key)!r}, this run has "
                f"{header.get(key)!r}: choose another output or delete the file."
            )
