"""A finished evaluation, and the difference between two: read and computed without any model."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from oprd.evaluation.intervals import Comparison, compare, gap_closed
from oprd.evaluation.metrics import average_at_n
from oprd.evaluation.records import Record, read_records
from oprd.evaluation.summary import Summary, correct_matrix, group_records, summarise


@dataclass(frozen=True)
class Evaluation:
    """One model on one task: what was run, every sample, and the figures computed from them."""

    header: dict[str, Any]
    records: list[Record]

    @classmethod
    def from_file(cls, path: Path) -> "Evaluation":
        """Read a finished evaluation.

        Raises:
            ValueError: the file is broken, or samples are missing.
        """
        header, records = read_records(path)
        evaluation = cls(header, records)
        evaluation.check_complete()
        return evaluation

    @property
    def asked(self) -> int:
        """Samples asked for."""
        return int(self.header["asked"])

    def check_complete(self) -> None:
        """Raise a ValueError where samples asked for and obtained differ."""
        if len(self.records) != self.asked:
            raise ValueError(
                f"{self.header['model']} on {self.header['task']}: {self.asked} samples were "
                f"asked for and {len(self.records)} obtained: run again to draw the rest."
            )

    @cached_property
    def summary(self) -> Summary:
        """Every figure, computed once."""
        return summarise(self.records, seed=int(self.header["sampling"]["seed"]))

    def averages(self) -> np.ndarray:
        """Avg@n of each problem, problems by id."""
        return self._averages

    @cached_property
    def _averages(self) -> np.ndarray:
        return average_at_n(correct_matrix(group_records(self.records)))

    def figures(self) -> dict[str, float]:
        """The main figures by name, such as `avg@16`, for a training log."""
        summary = self.summary
        n = summary.samples
        found = {
            f"avg@{n}": summary.average.value,
            f"avg@{n}_low": summary.average.low,
            f"avg@{n}_high": summary.average.high,
            f"best@{n}": summary.best.value,
            f"maj@{n}": None if summary.majority is None else summary.majority.value,
            **{f"pass@{k}": estimate.value for k, estimate in summary.pass_at.items()},
            "dist_4g": summary.distinct_4g,
            "length": summary.length["all"].mean,
            "truncated": summary.truncated,
        }
        return {name: value for name, value in found.items() if value is not None}


def compare_evaluations(first: Evaluation, second: Evaluation, seed: int = 0) -> Comparison:
    """Compare Avg@n of two models problem by problem, second minus first.

    Raises:
        ValueError: tasks, templates or problems differ.
    """
    for key in ("task", "template_hash", "source"):
        if first.header[key] != second.header[key]:
            raise ValueError(
                f"only the same task can be compared, got {key}={first.header[key]!r} and "
                f"{second.header[key]!r}."
            )
    groups = group_records(first.records), group_records(second.records)
    names = [[group[0].problem for group in side] for side in groups]
    if names[0] != names[1]:
        raise ValueError("only the same problems can be compared: use the same --limit.")
    hashes = {side.header.get("problems_hash") for side in (first, second)} - {None}
    if len(hashes) > 1:
        raise ValueError("only the same problems can be compared: prompts or gold answers differ.")
    return compare(first.averages(), second.averages(), seed)


def told_gap(teacher: Evaluation, before: Evaluation, after: Evaluation) -> str:
    """The share of a gap that was closed with its interval, or why there is none."""
    try:
        closed = gap_closed(teacher.averages(), before.averages(), after.averages())
    except ValueError as error:
        return f"not known ({error})"
    return f"{closed.value:.0%} [{closed.low:.0%}, {closed.high:.0%}]"
