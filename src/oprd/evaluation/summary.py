"""The figures of one evaluation, computed from its records and from nothing else."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oprd.evaluation import metrics
from oprd.evaluation.answers import comparable
from oprd.evaluation.intervals import Estimate, mean_interval
from oprd.evaluation.records import Record


@dataclass(frozen=True)
class Lengths:
    """Response tokens; None where there is no such response."""

    mean: float | None
    median: float | None
    p95: float | None

    @classmethod
    def of(cls, lengths: Sequence[int]) -> "Lengths":
        """The figures of any number of responses."""
        if not lengths:
            return cls(None, None, None)
        median, p95 = np.percentile(lengths, [50, 95])
        return cls(float(np.mean(lengths)), float(median), float(p95))


@dataclass(frozen=True)
class Summary:
    """The figures of one model on one task.

    Attributes:
        problems: how many.
        samples: per problem.
        average: Avg@n.
        best: Best@n.
        majority: maj@n; None where the grader read no answer out of any sample.
        pass_at: k to pass@k, the powers of two between 1 and n.
        solved_never: share of problems without a correct sample.
        solved_always: share of problems with correct samples only.
        distinct: n to Dist-n on the first `metrics.DISTINCT_BUDGET` token ids of each sample.
        distinct_4g: the paper's Dist-4g.
        length: `"all"`, `"correct"` and `"wrong"` responses.
        truncated: share of samples that reached the length limit, correct or not.
        statuses: samples by status.
        seconds: of generation.
        tokens_per_second: response tokens over those seconds.
    """

    problems: int
    samples: int
    average: Estimate
    best: Estimate
    majority: Estimate | None
    pass_at: dict[int, Estimate]
    solved_never: float
    solved_always: float
    distinct: dict[int, float | None]
    distinct_4g: float | None
    length: dict[str, Lengths]
    truncated: float
    statuses: dict[str, int]
    seconds: float
    tokens_per_second: float


def group_records(records: Sequence[Record]) -> list[list[Record]]:
    """Records by problem, problems by id and samples by number, whatever order they were made in.

    Raises:
        ValueError: there is none, or problems differ in their number of samples.
    """
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.key):
        groups.setdefault(record.problem, []).append(record)
    counts = Counter(map(len, groups.values()))
    if len(counts) != 1:
        raise ValueError(
            f"every problem needs the same number of samples, got {dict(counts)} "
            "(samples: problems): the evaluation is not complete."
        )
    return list(groups.values())


def correct_matrix(groups: Sequence[Sequence[Record]]) -> np.ndarray:
    """Verdicts as [P, n] bool."""
    return np.array([[record.correct for record in group] for group in groups])


def summarise(records: Sequence[Record], seed: int = 0) -> Summary:
    """Compute every figure.

    Args:
        records: the same number of samples for each problem.
        seed: of the bootstrap.

    Raises:
        ValueError: see `group_records`.
    """
    groups = group_records(records)
    correct = correct_matrix(groups)
    n = correct.shape[1]
    average = metrics.average_at_n(correct)
    answers = [[comparable(record.extracted) for record in group] for group in groups]
    seconds = sum(record.seconds for record in records)
    tokens = sum(len(record.ids) for record in records)
    return Summary(
        problems=len(groups),
        samples=n,
        average=mean_interval(average, seed=seed),
        best=mean_interval(metrics.best_at_n(correct), seed=seed),
        majority=_majority(answers, correct, seed),
        pass_at={
            k: mean_interval(metrics.pass_at_k(correct, k), seed=seed) for k in metrics.pass_ks(n)
        },
        solved_never=float((average == 0).mean()),
        solved_always=float((average == 1).mean()),
        distinct={n_gram: _distinct(groups, n_gram) for n_gram in (1, 2, 4)},
        distinct_4g=_mean([metrics.distinct_4g([r.text for r in group]) for group in groups]),
        length={
            "all": Lengths.of([len(r.ids) for r in records]),
            "correct": Lengths.of([len(r.ids) for r in records if r.correct]),
            "wrong": Lengths.of([len(r.ids) for r in records if not r.correct]),
        },
        truncated=sum(r.finish_reason == "length" for r in records) / len(records),
        statuses=dict(Counter(r.status for r in records).most_common()),
        seconds=seconds,
        tokens_per_second=tokens / seconds if seconds else 0.0,
    )


def _majority(
    answers: Sequence[Sequence[str | None]], correct: np.ndarray, seed: int
) -> Estimate | None:
    # Where nothing was read nothing can be voted on, however many samples are correct: a grader
    # may only say right or wrong.
    if all(answer is None for row in answers for answer in row):
        return None
    return mean_interval(metrics.majority_at_n(answers, correct), seed=seed)


def _distinct(groups: Sequence[Sequence[Record]], n: int) -> float | None:
    return _mean(
        [metrics.distinct_n([r.ids for r in g], n, metrics.DISTINCT_BUDGET) for g in groups]
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean over the problems that have a value."""
    kept = [value for value in values if value is not None]
    return sum(kept) / len(kept) if kept else None
