"""A column for every row of a matrix, never stepping back: exact, by dynamic programming.

    best(i, c) = rows[i][c] + max_{b ≤ c} best(i − 1, b)

is the highest sum over the first rows that ends in column c. With N rows and C columns that is
N · C sums, of the decimal numbers that the entries are written as: a float near 0.1 counts as a
tenth, so that a tie is a tie and not a rounding.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate


def monotone_columns(rows: Sequence[Sequence[float]], near: Sequence[int]) -> list[int]:
    """The columns c_1 ≤ c_2 ≤ … ≤ c_N of highest Σ_i rows[i][c_i].

    Args:
        rows: [N, C], finite.
        near: [N] columns that are preferred: among equal sums the least Σ_i |c_i − near_i| wins,
            and among those the lower columns of the later rows.
    """
    columns = range(len(rows[0]))
    # Of the best choice so far that ends at or before each column: its sum, and its distance
    # from `near` as a negative number, so that the greater of two is the better.
    best = [(Fraction(0), 0) for _ in columns]
    ends: list[list[int]] = []
    for row, wanted in zip(rows, near, strict=True):
        ending = [
            (total + Fraction(str(value)), nearness - abs(column - wanted))
            for column, ((total, nearness), value) in enumerate(zip(best, row, strict=True))
        ]
        # Where that choice ends: `ending` of a later column has to be better to take its place.
        at = list(accumulate(columns, lambda b, c, e=ending: c if e[c] > e[b] else b))
        best = [ending[column] for column in at]
        ends.append(at)
    chosen: list[int] = []
    for at in reversed(ends):
        chosen.append(at[chosen[-1] if chosen else -1])
    return chosen[::-1]
