"""Samples on disk, one JSON line each."""

import hashlib
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, get_args

from oprd.evaluation.grading import Grade, Status
from oprd.runs.rowfile import RowFile, check_header, parse_rows, rewrite_rows
from oprd.text import kind

# Of a sample's fields beside its status.
KINDS = {
    "problem": (str,),
    "sample": (int,),
    "ids": (list,),
    "text": (str,),
    "finish_reason": (str,),
    "gold": (str,),
    "extracted": (str, NoneType),
    "correct": (bool,),
    "seconds": (float, int),
    "thought": (str, NoneType),
}
# Of the entries of a file's header without which nothing can be said of it.
HEADER_KINDS = {
    "model": str,
    "task": str,
    "source": str,
    "template_hash": str,
    "prompt": str,
    "asked": int,
    "sampling": dict,
}
# What a grader and gold answers change in a header when they are mended.
MENDED = ("source", "grader", "problems_hash")
# What says nothing about the answer.
GRADER_FAILED: tuple[Status, ...] = ("grader_error", "timeout")


@dataclass(frozen=True)
class Record:
    """One sample and its verdict.

    `seconds` is its share of its batch's time. `thought` is the tag of the thought that its prompt
    left open, empty where it left none, and None in a file of a version that did not say.
    """

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
    thought: str | None = None

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise ValueError(f"status {self.status!r} is unknown.")
        for name, kinds in KINDS.items():
            # True is a whole number to Python.
            if type(value := getattr(self, name)) not in kinds:
                raise ValueError(f"{name} cannot be {kind(value)}.")
        if not set(map(type, self.ids)) <= {int}:
            raise ValueError("ids must be token ids.")
        if not 0 <= self.seconds <= sys.float_info.max:
            raise ValueError(f"seconds cannot be {self.seconds!r}.")

    @property
    def key(self) -> tuple[str, int]:
        """Which sample it is."""
        return self.problem, self.sample

    @property
    def name(self) -> str:
        """The same in words."""
        return f"problem {self.problem!r}, sample {self.sample}"


def final_grade(grade: Grade, finish_reason: str) -> Grade:
    """The grade of a sample: one that was cut and is not correct failed because it was cut.

    A response that stated the right answer before the limit stays correct, and of one that the
    grader failed on nobody knows.
    """
    if finish_reason == "length" and not grade.correct and grade.status not in GRADER_FAILED:
        return Grade(False, "truncated", grade.extracted)
    return grade


class RecordFile(RowFile[Record]):
    """The samples of one evaluation; see `RowFile`.

    Where only the grading may differ, the message of a refusal says that samples are graded again.
    """

    # Versions that did not say what the chat template was given gave it nothing.
    unsaid: ClassVar[Mapping[str, Any]] = {"chat_template_kwargs": {}}

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        try:
            super().__init__(path, header, Record)
        except ValueError as error:
            if "--regrade" in str(error) or not self._differs_in_grading(path, header):
                raise
            raise ValueError(
                f"{error} Where only a grader or gold answers were mended, grade the samples again "
                "with --regrade."
            ) from error

    def _differs_in_grading(self, path: Path, header: dict[str, Any]) -> bool:
        try:
            found, _, _ = parse_rows(path, Record)
            if found is None:
                return False
            mended = {key: found[key] for key in MENDED if key in found}
            check_header(path, {**self.unsaid, **found}, {**self.unsaid, **header, **mended})
        except ValueError:
            return False
        return True


def sample_file(folder: Path, model: str, task: str) -> Path:
    """Where the samples of a model on a task go, whatever characters their names hold."""
    return folder / _file_name(model) / f"{_file_name(task)}.jsonl"


def read_records(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """The header and the samples of a file; a cut last line is passed over.

    Raises:
        ValueError: there is no header, or a line before the last is broken.
    """
    header, records, _ = parse_rows(path, Record)
    if header is None:
        raise ValueError(f"{path} holds no evaluation: its header line is missing.")
    for name, wanted in HEADER_KINDS.items():
        if not isinstance(header.get(name), wanted):
            raise ValueError(f"{path}: {name} of its header cannot be {kind(header.get(name))}.")
    if not isinstance(seed := header["sampling"].get("seed"), int) or seed < 0:
        raise ValueError(f"{path}: the seed of its header cannot be {kind(seed)}.")
    return header, records


def rewrite_records(path: Path, header: dict[str, Any], records: Iterable[Record]) -> None:
    """Replace a file's contents in one step: the old file stays until the new one is complete."""
    rewrite_rows(path, header, records)


def _file_name(name: str) -> str:
    """A name as part of a path: readable where it is simple, unique where it is not."""
    simple = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._")[-80:]
    if simple and simple == name:
        return simple
    return f"{simple or 'unnamed'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
