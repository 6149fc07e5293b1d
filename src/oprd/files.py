"""Rows out of files, one at a time, so that a bad one can be named and the others kept."""

import csv
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, starmap
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from oprd.text import parse_json

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".jsonl.gz", ".json.gz", ".csv.gz")
BATCH_ROWS = 8192
UNREADABLE = (
    OSError,
    EOFError,
    RecursionError,
    UnicodeError,
    csv.Error,
    json.JSONDecodeError,
    pa.ArrowException,
    zlib.error,
)
# The longest field of a CSV file: the module's own limit cuts in at 128 KiB.
MAX_CSV_FIELD = 2**27


ChooseColumns = Callable[[list[str]], list[str]]


class Row(NamedTuple):
    """One row of a source, or what is wrong with it.

    Attributes:
        number: counted from 1; a line of a JSONL file, a row of any other.
        fields: the row's columns.
        problem: why the row could not be read.
    """

    number: int
    fields: dict[str, Any]
    problem: str | None = None


def read_rows(path: Path, choose: ChooseColumns = lambda names: names) -> Iterator[Row]:
    """The rows of a file, read as its name ends.

    Args:
        path: the file.
        choose: which of a table's columns are read; called with all of them, before any row.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the name ends in something else, the file cannot be read as what it claims to
            be, or `choose` refuses its columns.
    """
    if not path.is_file():
        raise FileNotFoundError(f"file {str(path)!r} does not exist.")
    name = path.name.lower().removesuffix(".gz")
    if not path.name.lower().endswith(SUFFIXES):
        raise ValueError(f"{str(path)!r} must end in one of {', '.join(SUFFIXES)}.")
    with _readable(path):
        if name.endswith(".parquet"):
            yield from _parquet(path, choose)
        elif name.endswith(".csv"):
            yield from _csv(path, choose)
        else:
            yield from _json(path)


def batch_rows(batches: Iterable[Any]) -> Iterator[Row]:
    """The rows of Arrow tables or record batches, numbered through."""
    rows = chain.from_iterable(batch.to_pylist() for batch in batches)
    return starmap(Row, enumerate(rows, 1))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{str(path)!r} cannot be read: {reason}") from error


def _parquet(path: Path, choose: ChooseColumns) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        columns = choose(file.schema_arrow.names)
        yield from batch_rows(file.iter_batches(BATCH_ROWS, columns=columns))


def _csv(path: Path, choose: ChooseColumns) -> Iterator[Row]:
    csv.field_size_limit(MAX_CSV_FIELD)
    with _text(path, newline="") as file:
        reader = csv.DictReader(file)
        choose(list(reader.fieldnames or ()))
        for number, fields in enumerate(reader, 1):
            surplus = fields.pop(None, None)
            problem = surplus and "it has more fields than the header: quote text that has commas"
            yield Row(number, fields, problem or None)


def _json(path: Path) -> Iterator[Row]:
    # A line ends where JSON's grammar has it end, not at every sign that Unicode calls a break.
    with _text(path, newline="\n") as file:
        if path.name.lower().endswith((".json", ".json.gz")) and file.read(64).lstrip()[:1] == "[":
            file.seek(0)
            for number, value in enumerate(_list(path, file.read()), 1):
                yield _object(number, value)
            return
        file.seek(0)
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _line(number, line)


def _list(path: Path, text: str) -> list[Any]:
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}") from error


def _line(number: int, line: str) -> Row:
    try:
        return _object(number, parse_json(line))
    except ValueError as error:
        return Row(number, {}, f"it is not valid JSON ({error})")


def _object(number: int, value: object) -> Row:
    if isinstance(value, dict):
        return Row(number, value)
    return Row(number, {}, f"it is a JSON {type(value).__name__}, not an object with columns")


def _text(path: Path, newline: str) -> IO[str]:
    """A file's text in the encoding that its first bytes show: UTF-8, UTF-16 or UTF-32.

    Bytes that are no text come through as surrogates, which mark their row as bad.
    """
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rb") as file:
        encoding = json.detect_encoding(file.read(4))
    return cast(
        IO[str],
        opener(path, "rt", encoding=encoding, errors="surrogateescape", newline=newline),
    )


def file_hash(path: Path) -> str:
    """The first 12 hexadecimal digits of a file's SHA-256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
