"""What runs left of evaluations: read, put side by side, and the answers in which models differ."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from oprd.evaluation.intervals import Estimate, mean_interval
from oprd.evaluation.records import Record
from oprd.evaluation.result import Evaluation
from oprd.evaluation.table import Compared, comparisons, sentences
from oprd.runs.record import SAVED, student_of_run

# Folders of a run with files of samples, each by model and then by task, or by model alone.
FOLDERS = ("evaluations", "samples")
STEP = re.compile(r"step-(\d+)")
# Models whose differences are all told, in pairs.
COMPARED = 4
# Characters of two answers that are shown before they part, and after.
ALIKE, APART = 400, 2_000
BEFORE, AFTER = "student before", "student after"


@dataclass(frozen=True)
class Row:
    """A model on a task.

    Attributes:
        model: its name.
        average: the share that it solves, with its 95% interval.
        tokens: of a response, mean.
        truncated: share of responses that reached the limit.
    """

    model: str
    average: Estimate
    tokens: float
    truncated: float

    @property
    def percent(self) -> str:
        """The share with its interval."""
        value, low, high = (
            100 * figure for figure in (self.average.value, self.average.low, self.average.high)
        )
        return f"{value:.1f} [{low:.1f}, {high:.1f}]"


@dataclass(frozen=True)
class TaskTable:
    """Models on the same problems.

    Attributes:
        task: its name.
        problems: how many.
        samples: per problem.
        rows: the models.
        compared: pairs of models.
        pairs: answers of two models to the same problem.
    """

    task: str
    problems: int
    samples: int
    rows: list[Row]
    compared: list[Compared]
    pairs: list["AnswerPair"]

    @property
    def differences(self) -> list[str]:
        """Of pairs of models, in sentences."""
        return sentences(self.compared)

    @property
    def gain(self) -> Compared | None:
        """The student after training against itself before, where both were evaluated."""
        pairs = {(found.model, found.baseline): found for found in self.compared}
        return pairs.get((AFTER, BEFORE))


@dataclass(frozen=True)
class AnswerPair:
    """Two models' answers to a problem, of which the first `common` characters are the same."""

    problem: str
    gold: str
    models: tuple[str, str]
    answers: tuple[str, str]
    correct: tuple[bool, bool]
    common: int

    @property
    def parting(self) -> list[tuple[str, str]]:
        """Of each answer what stands before and after the place where they part."""
        start, end = max(0, self.common - ALIKE), self.common + APART
        return [
            (
                ("… " if start else "") + text[start : self.common],
                text[self.common : end] + (" …" if len(text) > end else ""),
            )
            for text in self.answers
        ]


def read_evaluations(run: Path) -> tuple[list[Evaluation], list[str]]:
    """A run's evaluations that are complete, and in sentences those that cannot be shown.

    Of the evaluations while it trained, the first and the last of each task. An evaluation of a
    student that the run has no more is none of it.
    """
    student = student_of_run(run)
    found: list[Evaluation] = []
    problems: list[str] = []
    for file in _files(run):
        try:
            evaluation = Evaluation.from_file(file)
            # Kept once they are computed; one that is not complete has none.
            _ = evaluation.averages(), _seed(evaluation)
            _check_student(evaluation, student)
            found.append(evaluation)
        except (ValueError, KeyError, TypeError, OSError) as error:
            problems.append(f"{file.relative_to(run)}: {error}")
    return sorted(found, key=_order), problems


def task_tables(evaluations: Sequence[Evaluation], shown: int) -> list[TaskTable]:
    """One table for each set of problems, with so many pairs of answers."""
    groups: dict[tuple[str, ...], list[Evaluation]] = {}
    for evaluation in evaluations:
        groups.setdefault(alike(evaluation, seeds=True), []).append(evaluation)
    return [_table(group, shown) for group in groups.values()]


def _check_student(evaluation: Evaluation, student: str | None) -> None:
    """Refuse, with a ValueError, what is of another student than the run has, where both are known.

    A run that is gone on with, or made anew, keeps the files of its evaluations.
    """
    evaluated = evaluation.header.get(SAVED)
    if evaluation.header["model"] == AFTER and evaluated and student and evaluated != student:
        raise ValueError(
            "it is of another student than the run has now, and is left out. Delete the file and "
            "run oprd eval --run FOLDER again."
        )


def _files(run: Path) -> list[Path]:
    files = [
        file
        for folder in FOLDERS
        for file in sorted([*(run / folder).glob("*.jsonl"), *(run / folder).glob("*/*.jsonl")])
    ]
    by_step: dict[tuple[Path, str], list[Path]] = {}
    others = []
    for file in files:
        if STEP.fullmatch(file.parent.name):
            by_step.setdefault((file.parent.parent, file.name), []).append(file)
        else:
            others.append(file)
    ends = [file for each in by_step.values() for file in dict.fromkeys((each[0], each[-1]))]
    return [*others, *ends]


def _order(evaluation: Evaluation) -> tuple[int, str]:
    """The teacher, the student before, by step, and after; others by name."""
    name = str(evaluation.header.get("model", ""))
    known = {"teacher": 0, BEFORE: 1, AFTER: 3}
    return known.get(name, 2), name


def alike(evaluation: Evaluation, *, seeds: bool) -> tuple[str, ...]:
    """What must agree so that models can be compared problem by problem, the task first.

    Args:
        evaluation: of a model.
        seeds: whether samples must have the same random numbers too.
    """
    header = evaluation.header
    parts = (header.get(k) for k in ("task", "template_hash", "source", "problems_hash"))
    sampling = {k: v for k, v in header["sampling"].items() if seeds or k != "seed"}
    # A file of an older version has no hash of its problems.
    problems = sorted({record.problem for record in evaluation.records})
    return tuple(map(str, (*parts, problems, sampling)))


def _table(group: Sequence[Evaluation], shown: int) -> TaskTable:
    problems = len({record.problem for record in group[0].records})
    names = {str(each.header.get("model")): each for each in group}
    before, after = (names.get(name) for name in (BEFORE, AFTER))
    # Of many models the one pair is told that says whether training worked.
    ends = [each for each in (before, after) if each]
    told = group if len(group) <= COMPARED else ends
    compared = comparisons(told) if len(told) > 1 else []
    if before is None or after is None:
        before, after = (group[0], group[-1]) if len(group) > 1 else (None, None)
    pairs = list(_pairs(before, after)) if before and after else []
    return TaskTable(
        str(group[0].header.get("task")),
        problems,
        len(group[0].records) // max(problems, 1),
        [row_of(each) for each in group],
        compared,
        sorted(pairs, key=lambda pair: (pair.correct != (False, True), pair.correct))[:shown],
    )


def row_of(evaluation: Evaluation) -> Row:
    """What a table says of one evaluation."""
    records = evaluation.records
    return Row(
        str(evaluation.header.get("model")),
        # The same interval as in the log and in `oprd eval`.
        mean_interval(evaluation.averages(), seed=_seed(evaluation)),
        sum(len(record.ids) for record in records) / len(records),
        sum(record.finish_reason == "length" for record in records) / len(records),
    )


def _seed(evaluation: Evaluation) -> int:
    return int(evaluation.header["sampling"]["seed"])


def _pairs(first: Evaluation, second: Evaluation) -> Iterable[AnswerPair]:
    """The first sample of each problem, by both models."""
    answers = {record.key: record for record in second.records}
    for record in first.records:
        other = answers.get(record.key)
        if record.sample == 0 and other is not None:
            yield _pair(record, other, str(first.header["model"]), str(second.header["model"]))


def _pair(first: Record, second: Record, *names: str) -> AnswerPair:
    return AnswerPair(
        first.problem,
        first.gold,
        (names[0], names[1]),
        (first.text, second.text),
        (first.correct, second.correct),
        _common(first.text, second.text),
    )


def _common(first: str, second: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))
