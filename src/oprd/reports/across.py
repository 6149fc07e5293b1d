"""Students of several runs on the same problems: each against that of the first run, paired."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from oprd.evaluation.result import Evaluation
from oprd.evaluation.table import Compared, comparisons
from oprd.reports.evaluations import AFTER, STEP, Row, alike, row_of


@dataclass(frozen=True)
class Standing:
    """A run's student on a task.

    Attributes:
        run: its place among the runs.
        row: its figures.
        against: the difference from the first student of the table, None for that one itself.
    """

    run: int
    row: Row
    against: Compared | None


@dataclass(frozen=True)
class AcrossTable:
    """Students of at least two runs, each as training left it, on the same problems.

    Attributes:
        task: its name.
        problems: how many.
        samples: per problem.
        rows: the students in the order of their runs.
    """

    task: str
    problems: int
    samples: int
    rows: list[Standing]


def across(runs: Sequence[Sequence[Evaluation]]) -> tuple[list[AcrossTable], list[str]]:
    """Tables of what the runs' last students were evaluated on alike.

    Args:
        runs: evaluations of each run.

    Returns:
        tables, and tasks on which runs were evaluated, but not alike.
    """
    groups: dict[tuple[str, ...], dict[int, Evaluation]] = {}
    tasks: dict[str, set[int]] = {}
    for number, evaluations in enumerate(runs):
        for evaluation in sorted(filter(_is_student, evaluations), key=_age):
            # Runs of other seeds draw other samples of the same problems.
            groups.setdefault(alike(evaluation, seeds=False), {})[number] = evaluation
            tasks.setdefault(str(evaluation.header["task"]), set()).add(number)
    tables = [_table(group) for group in groups.values() if len(group) > 1]
    together = {
        task: max(len(group) for key, group in groups.items() if key[0] == task) for task in tasks
    }
    apart = [task for task, found in tasks.items() if together[task] < len(found)]
    return tables, apart


def _is_student(evaluation: Evaluation) -> bool:
    name = str(evaluation.header["model"])
    return name == AFTER or STEP.fullmatch(name) is not None


def _age(evaluation: Evaluation) -> float:
    """The step of a student; the one after training is the last."""
    step = STEP.fullmatch(str(evaluation.header["model"]))
    return int(step[1]) if step else float("inf")


def _table(group: dict[int, Evaluation]) -> AcrossTable:
    first, *_ = evaluations = list(group.values())
    against: Iterator[Compared | None] = iter([None, *comparisons(evaluations, to_first=True)])
    problems = len(first.averages())
    return AcrossTable(
        str(first.header["task"]),
        problems,
        len(first.records) // problems,
        [Standing(run, row_of(each), next(against)) for run, each in group.items()],
    )
