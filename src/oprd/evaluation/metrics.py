"""Figures of an evaluation, each one value a problem first, then the mean over problems.

Letters: P problems, n samples per problem.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from math import comb

import numpy as np

# Distinct-n falls with length, so samples are compared on their first tokens only.
DISTINCT_BUDGET = 256


def average_at_n(correct: np.ndarray) -> np.ndarray:
    """Avg@n: the share of correct samples, [P] from [P, n]."""
    return correct.mean(axis=1)


def best_at_n(correct: np.ndarray) -> np.ndarray:
    """Best@n: 1 where any sample is correct, [P] from [P, n]."""
    return correct.any(axis=1).astype(float)


def pass_at_k(correct: np.ndarray, k: int) -> np.ndarray:
    """The unbiased chance that k of the n samples hold a correct one: 1 − C(n−c, k)/C(n, k).

    Args:
        correct: [P, n] bool.
        k: from 1 to n.

    Returns:
        [P].

    Raises:
        ValueError: k is outside 1..n.
    """
    n = correct.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"pass@k needs k in 1..{n}, the samples per problem, got {k}.")
    # Integers of any size: no rounding before the one division.
    by_count = np.array([1 - comb(n - c, k) / comb(n, k) for c in range(n + 1)])
    return by_count[correct.sum(axis=1)]


def pass_ks(n: int) -> list[int]:
    """The k of the pass@k that are reported for n samples: the powers of two between 1 and n."""
    return [2**power for power in range(1, n.bit_length()) if 2**power < n]


def accuracy_names(n: int) -> list[str]:
    """The figures of n samples of which more is better."""
    return [f"avg@{n}", f"best@{n}", f"maj@{n}", *[f"pass@{k}" for k in pass_ks(n)]]


def majority_at_n(answers: Sequence[Sequence[Hashable | None]], correct: np.ndarray) -> np.ndarray:
    """maj@n: the chance that the most frequent answer is correct, ties broken by lot.

    Args:
        answers: for each problem the n answers in a comparable form; None, which is no answer, has
            no vote.
        correct: [P, n] bool.

    Returns:
        [P], 0 where no sample has an answer.
    """
    shares = np.zeros(len(correct))
    for row, (given, verdicts) in enumerate(zip(answers, correct, strict=True)):
        votes = Counter(answer for answer in given if answer is not None)
        if not votes:
            continue
        most = max(votes.values())
        winners = [answer for answer, count in votes.items() if count == most]
        right = {answer for answer, verdict in zip(given, verdicts, strict=True) if verdict}
        shares[row] = sum(answer in right for answer in winners) / len(winners)
    return shares


def distinct_n(
    samples: Sequence[Sequence[Hashable]], n: int, budget: int | None = None
) -> float | None:
    """Distinct n-grams over all n-grams, pooled over the samples of one problem.

    Args:
        samples: sequences of token ids or of words.
        n: the length of an n-gram, at least 1.
        budget: how many tokens of each sample are read; None reads all.

    Returns:
        A share, or None where no sample is n tokens long.

    Raises:
        ValueError: n or the budget is below 1.
    """
    if n < 1 or (budget is not None and budget < 1):
        raise ValueError(f"n and budget must be at least 1, got {n} and {budget}.")
    kept = [sample[:budget] for sample in samples]
    flat = [token for sample in kept for token in sample]
    owner = np.repeat(np.arange(len(kept)), [len(sample) for sample in kept])
    number = {token: index for index, token in enumerate(dict.fromkeys(flat))}
    tokens = np.fromiter(map(number.__getitem__, flat), dtype=np.int64, count=len(flat))
    starts = max(0, len(flat) - n + 1)
    grams, largest = np.zeros(starts, dtype=np.int64), 1
    for position in range(n):
        if largest * len(number) >= 2**62:
            # Numbered anew, so that one number a gram neither overflows nor collides.
            grams, largest = np.unique(grams, return_inverse=True)[1], starts
        grams = grams * len(number) + tokens[position : position + starts]
        largest *= len(number)
    within = owner[:starts] == owner[n - 1 : n - 1 + starts]
    return len(np.unique(grams[within])) / int(within.sum()) if within.any() else None


def distinct_4g(texts: Sequence[str]) -> float | None:
    """The paper's Dist-4g: whitespace 4-grams pooled over the samples of one problem."""
    return distinct_n([text.split() for text in texts], 4)
