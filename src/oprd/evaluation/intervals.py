"""How sure a figure is. The unit is the problem: samples of one problem are not independent."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from oprd.extras import require

CONFIDENCE = 0.95
RESAMPLES = 9_999
# Up to so many problems on which two models differ, all swaps of the models are counted.
COUNTED = 16
# Equal shares reached by different sums are this close; those of samples that differ are not.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A mean over problems and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two models on the same problems, second minus first.

    Attributes:
        difference: of the means over problems, with the interval of paired differences.
        wins: problems on which the second is better.
        losses: problems on which it is worse.
        ties: problems on which both are equal.
        p_value: two-sided, of the permutation test that swaps the models problem by problem.
        p_is_bound: whether p is the smallest that the test's draws can show, and may be smaller.
    """

    difference: Estimate
    wins: int
    losses: int
    ties: int
    p_value: float
    p_is_bound: bool = False


def mean_interval(
    values: np.ndarray, bounds: tuple[float, float] = (0.0, 1.0), seed: int = 0
) -> Estimate:
    """The mean over problems with a seeded BCa bootstrap interval.

    Where every problem has the same value, rounding aside, there is nothing to resample, but with N
    problems an unseen kind may still have a share of u = 1 − (α/2)^(1/N). The interval lets that
    share take either bound: at 0% and at 100% of the default bounds this is the exact binomial
    (Clopper–Pearson) interval.

    Args:
        values: [problems], finite.
        bounds: the smallest and the largest value that a problem can have.
        seed: of the resampling.

    Raises:
        ValueError: there is no value, or one is not finite or outside the bounds.
    """
    low, high = bounds
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"values must be [problems] with at least one, got {values.shape}.")
    if not np.all(np.isfinite(values)) or values.min() < low or values.max() > high:
        raise ValueError(f"values must lie within {bounds}, got {values.min()}..{values.max()}.")
    mean = float(values.mean())
    if values.max() - values.min() <= ROUNDING:
        mean = float(values[0])
        unseen = 1 - ((1 - CONFIDENCE) / 2) ** (1 / values.size)
        return Estimate(mean, mean - (mean - low) * unseen, mean + (high - mean) * unseen)
    stats = require("scipy.stats", "report", "an interval")
    found = stats.bootstrap(
        (values,),
        np.mean,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        batch=_batch(values.size),
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(mean, float(found.low), float(found.high))


def compare(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Comparison:
    """Compare two models problem by problem.

    Args:
        first: [problems], one value in 0..1 a problem.
        second: [problems], of the same problems in the same order.
        seed: of the resampling and the permutations.

    Raises:
        ValueError: the shapes differ, or a value is outside 0..1.
    """
    if first.shape != second.shape:
        raise ValueError(f"both models need the same problems, got {first.shape}, {second.shape}.")
    differences = second - first
    differences[np.abs(differences) <= ROUNDING] = 0.0
    p_value = _permutation_p(differences[differences != 0], seed)
    counted = np.count_nonzero(differences) <= COUNTED
    return Comparison(
        difference=mean_interval(differences, bounds=(-1.0, 1.0), seed=seed),
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
        ties=int((differences == 0).sum()),
        p_value=p_value,
        # Both tails, each with the observed swap among the draws.
        p_is_bound=not counted and p_value <= 2 / (RESAMPLES + 1),
    )


def gap_closed(
    teacher: np.ndarray, before: np.ndarray, after: np.ndarray, seed: int = 0
) -> Estimate:
    """The share of the gap between a teacher and a student that training closed, with its interval.

    Problems are resampled, each with the values of all three models: the interval is that of
    (after − before) / (teacher − before), paired, by percentiles.

    Args:
        teacher: [problems], one value in 0..1 a problem.
        before: [problems], the student's before training, of the same problems in the same order.
        after: [problems], the student's after it.
        seed: of the resampling.

    Raises:
        ValueError: the shapes differ, or there is no gap.
    """
    if not teacher.shape == before.shape == after.shape:
        raise ValueError("all three models need the same problems.")
    if abs(teacher.mean() - before.mean()) <= ROUNDING:
        raise ValueError("there is no gap to close: teacher and student are equally good.")

    def closed(*models: np.ndarray, axis: int = -1) -> np.ndarray:
        top, bottom, reached = (model.mean(axis=axis) for model in models)
        gap = np.where(np.abs(top - bottom) <= ROUNDING, np.nan, top - bottom)
        return (reached - bottom) / gap

    stats = require("scipy.stats", "report", "an interval")
    # A resample without a gap has no share, and is left out; scipy warns of it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        drawn = stats.bootstrap(
            (teacher, before, after),
            closed,
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=_batch(teacher.size),
            method="percentile",
            rng=np.random.default_rng(seed),
        ).bootstrap_distribution
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(drawn[np.isfinite(drawn)], tails)
    return Estimate(float(closed(teacher, before, after)), float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected p of several comparisons: the chance that any is false stays bounded (Holm)."""
    corrected = list(p_values)
    largest = 0.0
    for smaller, index in enumerate(np.argsort(p_values, kind="stable")):
        # Never below a smaller one's.
        largest = max(largest, min(1.0, (len(corrected) - smaller) * p_values[index]))
        corrected[index] = largest
    return corrected


def _batch(problems: int) -> int:
    """Resamples at once: bounds their indices to some 100 MB whatever the number of problems."""
    return max(1, 10_000_000 // problems)


def _permutation_p(differences: np.ndarray, seed: int) -> float:
    """Two-sided p of the sign-flip test; problems without a difference carry no information."""
    if differences.size == 0:
        return 1.0
    if differences.size == 1:
        # scipy asks for two observations; one sign is as likely as the other.
        return 1.0
    stats = require("scipy.stats", "report", "a permutation test")
    found = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        # From the number of all swaps on scipy counts them instead of drawing some.
        n_resamples=2**differences.size if differences.size <= COUNTED else RESAMPLES,
        batch=_batch(differences.size),
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)
