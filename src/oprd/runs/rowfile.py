"""Rows on disk: a header line, then one JSON line a row, written as they are made.

A file that was cut anywhere keeps its complete lines, so that what writes it goes on with the rows
that are missing.
"""

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, Generic, Protocol, Self, TypeVar

from oprd.runs.atomic import written_whole
from oprd.runs.lock import try_lock
from oprd.text import parse_json

FORMAT = 1
# What may differ between the runs that fill one file.
FREE_KEYS = frozenset({"path", "versions", "batch_size", "device"})
# What files of earlier versions do not say.
LATER_KEYS = frozenset({"problems_hash", "chat_template_kwargs"})


class KeyedRow(Protocol):
    """A dataclass whose fields JSON can hold; its construction may refuse values."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def key(self) -> Hashable:
        """What no other row of the file has."""
        ...

    @property
    def name(self) -> str:
        """The key, for messages."""
        ...


R = TypeVar("R", bound=KeyedRow)


class RowFile(Generic[R]):
    """A file of rows, opened for appending and locked against a second writer.

    Args:
        path: created with its folders where it does not exist.
        header: what the rows depend on; an existing file must have been written under the same.
        kind: what a row is.

    Attributes:
        records: what the file holds.

    Raises:
        ValueError: the file was written under another header, is broken before its last line, or
            holds something else. It is left as it was.
        OSError: another process writes to it.
    """

    # What a file of an earlier version means where it does not say it.
    unsaid: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, path: Path, header: dict[str, Any], kind: type[R]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        try:
            _lock(self._file, path)
            found, self.records, complete = parse_rows(path, kind)
            if found is not None:
                check_header(path, {**self.unsaid, **found}, {**self.unsaid, **header})
            elif not _line(_header_row(header)).startswith(path.read_bytes()):
                raise ValueError(
                    f"{path} exists and was not written by this run: choose another output or "
                    "delete the file."
                )
            self._file.truncate(complete)
            if found is None:
                self._write([_header_row(header)])
        except BaseException:
            self._file.close()
            raise

    def append(self, records: Iterable[R]) -> None:
        """Add rows; they are with the operating system when this returns."""
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

    def _write(self, rows: Iterable[dict[str, Any]]) -> None:
        self._file.write(b"".join(_line(row) for row in rows))
        self._file.flush()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep writers away from an existing file.

    Raises:
        OSError: there is no such file, or another process writes to it.
    """
    with path.open("r+b") as file:
        _lock(file, path)
        yield


def rewrite_rows(path: Path, header: dict[str, Any], records: Iterable[KeyedRow]) -> None:
    """Replace a file's contents in one step: the old file stays until the new one is complete."""
    with written_whole(path) as whole, whole.open("wb") as file:
        file.writelines(_line(row) for row in [_header_row(header), *map(asdict, records)])


def parse_rows(path: Path, kind: type[R]) -> tuple[dict[str, Any] | None, list[R], int]:
    """Header, rows, and how many bytes of complete lines the file begins with.

    A cut last line is passed over; the header is None where there is no complete line.

    Raises:
        ValueError: a line before the last is broken, or two rows have one key.
    """
    content = path.read_bytes()
    lines = content.split(b"\n")
    header: dict[str, Any] | None = None
    records: list[R] = []
    complete = 0
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = parse_json(line)
            if number == 1:
                header = _checked_header(row)
            else:
                records.append(_checked_row(row, kind))
        except ValueError as error:
            if number == len(lines) - 1:
                break
            raise ValueError(f"{path}, line {number}: {error}") from error
        complete += len(line) + 1
    _check_unique(path, records)
    return header, records, complete


def check_header(path: Path, found: dict[str, Any], header: dict[str, Any]) -> None:
    """Refuse a file that was written under another header.

    Raises:
        ValueError: an entry differs; the message names it.
    """
    keys = (header.keys() | found.keys()) - FREE_KEYS - (LATER_KEYS - found.keys())
    different = [key for key in sorted(keys) if found.get(key) != header.get(key)]
    if not different:
        return
    key = different[0]
    way_out = "choose another output or delete the file"
    if different == ["grader"]:
        way_out = "grade its samples again with --regrade"
    raise ValueError(
        f"{path} was written with {key}={found.get(key)!r}, this run has {header.get(key)!r}: "
        f"{way_out}."
    )


def _lock(file: IO[bytes], path: Path) -> None:
    if not try_lock(file):
        raise OSError(f"{path} is being written by another process.")


def _header_row(header: dict[str, Any]) -> dict[str, Any]:
    return {"format": FORMAT, **header}


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _checked_header(row: Any) -> dict[str, Any]:
    _check_object(row)
    if row.get("format") != FORMAT:
        raise ValueError(f"format {row.get('format')!r} is not {FORMAT}.")
    return {key: value for key, value in row.items() if key != "format"}


def _checked_row(row: Any, kind: type[R]) -> R:
    _check_object(row)
    known = {f.name for f in fields(kind)}
    # Fields with a default are those that earlier versions did not write.
    needed = {f.name for f in fields(kind) if f.default is MISSING}
    if different := (needed - row.keys()) | (row.keys() - known):
        raise ValueError(f"fields {sorted(different)} are missing or unknown.")
    return kind(**row)


def _check_object(row: Any) -> None:
    if not isinstance(row, dict):
        raise ValueError(f"a line holds a JSON object, got {type(row).__name__}.")


def _check_unique(path: Path, records: Sequence[KeyedRow]) -> None:
    seen: set[Hashable] = set()
    for record in records:
        if record.key in seen:
            raise ValueError(f"{path} holds {record.name} twice.")
        seen.add(record.key)
