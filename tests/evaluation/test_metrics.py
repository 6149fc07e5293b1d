from itertools import combinations

import numpy as np
import pytest

from oprd.evaluation import metrics

CORRECT = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=bool)


def test_average_and_best() -> None:
    assert metrics.average_at_n(CORRECT).tolist() == [0.5, 0, 1]
    assert metrics.best_at_n(CORRECT).tolist() == [1, 0, 1]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(k: int) -> None:
    expected = [np.mean([any(s) for s in combinations(row, k)]) for row in CORRECT]
    assert metrics.pass_at_k(CORRECT, k) == pytest.approx(expected)


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_needs_k_within_the_samples(k: int) -> None:
    with pytest.raises(ValueError, match=rf"1\.\.4.*got {k}"):
        metrics.pass_at_k(CORRECT, k)


def test_majority_ignores_missing_answers_and_shares_ties() -> None:
    answers = [["5", "5", "6", None], [None] * 4, ["5", "6", None, None], ["6", "6", "5", "5"]]
    correct = np.array([[a == "5" for a in row] for row in answers])
    assert metrics.majority_at_n(answers, correct).tolist() == [1, 0, 0.5, 0.5]


def test_distinct_n_pools_the_samples_of_a_problem() -> None:
    assert metrics.distinct_n([[1, 2, 3], [1, 2, 4]], 2) == 3 / 4
    assert metrics.distinct_n([[1, 1, 1, 1]], 1) == 1 / 4
    assert metrics.distinct_4g(["a b c d e", "a b c d"]) == 2 / 3


def test_distinct_n_equals_a_set_of_tuples() -> None:
    rng = np.random.default_rng(0)
    samples = [rng.integers(0, 6, size).tolist() for size in (0, 3, 4, 50, 90)]
    grams = [tuple(s[i : i + 4]) for s in samples for i in range(len(s) - 3)]
    assert metrics.distinct_n(samples, 4) == len(set(grams)) / len(grams)


def test_distinct_n_does_not_overflow() -> None:
    samples = [list(range(3000)), list(range(2999, -1, -1)), list(range(3000))]
    # The first and the third sample are the same, the second shares no gram with them.
    assert metrics.distinct_n(samples, 9) == pytest.approx(2 / 3)


def test_distinct_n_reads_the_budget_only() -> None:
    assert metrics.distinct_n([[1, 2, 3, 1, 1, 1, 1]], 1, budget=3) == 1
    assert metrics.distinct_n([[1, 2]], 4) is None
    with pytest.raises(ValueError, match="at least 1"):
        metrics.distinct_n([[1]], 0)
