import sys
from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from oprd.evaluation.intervals import compare, gap_closed, holm, mean_interval

HALVES = np.random.default_rng(1).binomial(8, 0.4, size=60) / 8


@pytest.mark.parametrize("share", [0, 1])
@pytest.mark.parametrize("problems", [1, 30, 500])
def test_the_interval_is_the_exact_one_at_both_ends(share: int, problems: int) -> None:
    found = mean_interval(np.full(problems, float(share)))
    exact = binomtest(share * problems, problems).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-12)
    assert found.value == share


def test_a_constant_share_is_not_certain() -> None:
    found = mean_interval(np.full(20, 0.5))
    assert found.low < 0.5 < found.high


def test_equal_values_that_were_rounded_are_as_uncertain_as_equal_ones() -> None:
    first, second = np.array([0.2, 0.4]), np.array([0.6, 0.8])
    assert len(set(second - first)) == 2
    found, exact = compare(first, second).difference, mean_interval(np.full(2, 0.4), (-1.0, 1.0))
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
    assert found.low < 0.4 < found.high


def test_the_interval_covers_the_mean_and_is_the_same_for_the_same_seed() -> None:
    first, again = mean_interval(HALVES, seed=3), mean_interval(HALVES, seed=3)
    assert first == again
    assert first.low < first.value < first.high
    # Close to the normal interval, which is right for many values away from the ends.
    width = 2 * 1.96 * HALVES.std(ddof=1) / np.sqrt(HALVES.size)
    assert first.high - first.low == pytest.approx(width, rel=0.1)
    assert mean_interval(HALVES, seed=4) != first


@pytest.mark.parametrize("values", [[], [np.nan], [1.5], [-0.1, 0.5]])
def test_values_that_are_no_shares_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="values must"):
        mean_interval(np.array(values))


def test_a_comparison_counts_and_tests_pairs() -> None:
    first, second = np.zeros(12), np.array([1.0] * 9 + [0.0] * 3)
    found = compare(first, second)
    assert (found.wins, found.losses, found.ties) == (9, 0, 3)
    assert found.difference.value == 0.75
    # Nine signs that all agree: 2 of 2^9 assignments are as extreme.
    assert found.p_value == pytest.approx(2 / 512, rel=0.01)


def test_a_comparison_is_antisymmetric() -> None:
    other = np.clip(HALVES + np.random.default_rng(2).choice([-0.125, 0, 0.125], 60), 0, 1)
    one, two = compare(HALVES, other), compare(other, HALVES)
    assert one.difference.value == pytest.approx(-two.difference.value)
    assert (one.wins, one.losses) == (two.losses, two.wins)
    assert one.p_value == pytest.approx(two.p_value, abs=0.02)


def test_equal_models_differ_by_nothing_but_not_for_certain() -> None:
    found = compare(HALVES, HALVES)
    assert (found.difference.value, found.p_value, found.ties) == (0, 1, 60)
    assert found.difference.low < 0 < found.difference.high
    assert compare(np.array([0.0, 1.0]), np.array([1.0, 1.0])).p_value == 1


def test_unequal_numbers_of_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="same problems"):
        compare(HALVES, HALVES[1:])


def test_scipy_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"pip install 'oprd\[report\]'"):
        mean_interval(HALVES)
    assert mean_interval(np.zeros(3)).value == 0


def signs(differences: np.ndarray) -> float:
    """Two-sided p by counting every assignment of signs."""
    flips = np.array(list(product((1, -1), repeat=len(differences))))
    means = flips @ differences
    found = differences.sum()
    return min(1.0, 2 * min(np.mean(means >= found - 1e-9), np.mean(means <= found + 1e-9)))


@pytest.mark.parametrize("problems", [2, 9, 14, 15, 16])
def test_p_is_exact_where_all_swaps_can_be_counted(problems: int) -> None:
    rng = np.random.default_rng(problems)
    second = rng.choice([0.25, 0.5, 1.0], problems)
    first = np.where(rng.random(problems) < 0.2, 1.0, 0.0)
    first[first == second] = 0.0
    found = compare(first, second)
    assert found.p_value == pytest.approx(signs(second - first), rel=1e-9)
    assert not found.p_is_bound
    assert compare(np.zeros(problems), second).p_value == pytest.approx(2 / 2**problems)
    # Problems without a difference carry no information.
    ties = np.full(40, 0.5)
    assert compare(np.append(first, ties), np.append(second, ties)).p_value == found.p_value


@pytest.mark.parametrize("problems", [17, 40, 300])
def test_at_the_floor_of_its_draws_p_is_a_bound(problems: int) -> None:
    found = compare(np.zeros(problems), np.ones(problems))
    assert found.p_is_bound and found.p_value == pytest.approx(0.0002)
    some = compare(np.zeros(problems), np.ones(problems) * ([1, 0] * problems)[:problems])
    assert some.p_value > 0
    even = compare(np.arange(problems) % 2.0, (np.arange(problems) + 1) % 2.0)
    assert not even.p_is_bound and even.p_value > 0.5


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        ([0.01], [0.01]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.0002, 0.0160, 0.0002], [0.0006, 0.0160, 0.0006]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([], []),
    ],
)
def test_several_comparisons_are_corrected_by_holm(
    given: list[float], corrected: list[float]
) -> None:
    assert holm(given) == pytest.approx(corrected)


def test_the_gap_closed_has_a_paired_interval() -> None:
    rng = np.random.default_rng(3)
    teacher = (rng.random(96) < 0.9).astype(float)
    before, after = np.zeros(96), teacher.copy()
    after[:20] *= rng.random(20) < 0.8
    found = gap_closed(teacher, before, after)
    assert found.value == pytest.approx(after.mean() / teacher.mean())
    assert found.low < found.value < found.high <= 1
    assert gap_closed(teacher, before, after) == found
    # Paired: a student that solves just what the teacher solves leaves nothing to be unsure of.
    exact = gap_closed(teacher, before, teacher)
    assert (exact.value, exact.low, exact.high) == (1, 1, 1)
    # A gap of which little is known: some resamples have none, and the interval is wide.
    unsure = gap_closed(np.array([1.0, 0.0, 0.0]), np.zeros(3), np.array([0.0, 1.0, 0.0]))
    assert unsure.low <= unsure.value <= unsure.high


def test_without_a_gap_there_is_no_share_of_it() -> None:
    with pytest.raises(ValueError, match="no gap to close"):
        gap_closed(HALVES, HALVES, np.ones(60))
    with pytest.raises(ValueError, match="no gap to close"):
        gap_closed(HALVES + 1e-16, HALVES, np.ones(60))
    with pytest.raises(ValueError, match="all three models need the same problems"):
        gap_closed(HALVES, HALVES[1:], HALVES)
