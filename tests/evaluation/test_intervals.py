import sys

import numpy as np
import pytest
from scipy.stats import binomtest

from oprd.evaluation.intervals import compare, mean_interval

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
