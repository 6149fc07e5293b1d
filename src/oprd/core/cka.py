"""How alike the layers of two models are: debiased linear CKA of paired rows.

For rows x_i of one layer and y_i of another, K̃_ij = x_i · x_j and L̃_ij = y_i · y_j, both with a
diagonal of zeros,

    HSIC(K, L) = 1/(N(N−3)) [ tr(K̃L̃) + 1ᵀK̃1 · 1ᵀL̃1 / ((N−1)(N−2)) − 2/(N−2) · 1ᵀK̃L̃1 ]

is an unbiased estimate (Song et al. 2012, Eq. 5), and

    CKA = HSIC(K, L) / √(HSIC(K, K) · HSIC(L, L))

is 1 for rows that differ by a rotation and a scale, and about 0 for independent ones, however many
dimensions they have (Nguyen et al. 2021). The sums run over some rows of K̃ at a time, so that what
is kept grows with N and not with N².

Letters: N rows, n rows of a block, L layers of one model, L_S and L_T of both, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# HSIC divides by N − 3.
MIN_ROWS = 4
# Rows of K̃ that are made at once, for all layers.
BLOCK_ROWS = 256


def debiased_cka(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """[L_S, L_T] of every student layer with every teacher layer, in float64.

    Args:
        student: rows [N, D] of each layer, of any floating dtype, all on one device.
        teacher: likewise, of another width perhaps; row n belongs to the student's row n.

    Raises:
        ValueError: N differs or is below `MIN_ROWS`, or a layer's rows are all alike.
    """
    counts = sorted({len(rows) for rows in (*student, *teacher)})
    if len(counts) != 1 or counts[0] < MIN_ROWS:
        raise ValueError(
            f"debiased CKA takes the same rows of each layer, at least {MIN_ROWS}, got {counts}."
        )
    n = counts[0]
    ours, theirs = _Grams("student", student), _Grams("teacher", teacher)
    products = ours.squares.new_zeros(len(student), len(teacher))
    for start in range(0, n, BLOCK_ROWS):
        products += ours.rows_from(start) @ theirs.rows_from(start).T
    totals = torch.outer(ours.sums.sum(1), theirs.sums.sum(1))
    common = _hsic(products, totals, ours.sums @ theirs.sums.T, n)
    return common / torch.outer(ours.own().sqrt(), theirs.own().sqrt())


class _Grams:
    """The Gram matrices K̃ of one model's layers, made some rows at a time and summed up.

    Args:
        name: of the model, for messages.
        layers: rows [N, D] of each layer.

    Attributes:
        sums: [L, N] K̃1, of the rows of K̃ that were made so far.
        squares: [L] tr(K̃K̃), likewise.
    """

    def __init__(self, name: str, layers: Sequence[Tensor]) -> None:
        self._name, self._layers = name, layers
        # Centring leaves HSIC as it is, and keeps its digits where a mean is far from zero.
        self._means = [rows.mean(dim=0, dtype=torch.float64) for rows in layers]
        self.sums = self._means[0].new_zeros(len(layers), len(layers[0]))
        self.squares = self._means[0].new_zeros(len(layers))

    def rows_from(self, start: int) -> Tensor:
        """[L, n · N] the next rows of each layer's K̃, which are added to the sums."""
        block = slice(start, start + BLOCK_ROWS)
        grams = torch.stack([c[block] @ c.T for c in map(self._centred, range(len(self._layers)))])
        grams.diagonal(offset=start, dim1=1, dim2=2).zero_()
        self.sums[:, block] = grams.sum(dim=2)
        self.squares += grams.square().sum(dim=(1, 2))
        return grams.flatten(1)

    def own(self) -> Tensor:
        """[L] HSIC(K, K), once all rows were made.

        Raises:
            ValueError: it is nothing but rounding.
        """
        totals, overlaps = self.sums.sum(1).square(), self.sums.square().sum(1)
        found = _hsic(self.squares, totals, overlaps, self.sums.shape[1])
        rounding = 64 * torch.finfo(torch.float64).eps
        for place, mean in enumerate(self._means):
            spread, rows = self._centred(place).square().sum(), self.sums.shape[1]
            constant = spread <= rows * rounding**2 * (mean @ mean)
            if constant or found[place] <= rounding * spread.square():
                raise ValueError(
                    f"{self._name} layer {place + 1} is the same vector in all {rows} rows, or all "
                    "rows are equally far apart: it is like no other layer. Add prompts, or name "
                    "layer pairs."
                )
        return found

    def _centred(self, place: int) -> Tensor:
        return self._layers[place] - self._means[place]


def _hsic(product: Tensor, totals: Tensor, overlap: Tensor, n: int) -> Tensor:
    """N(N−3) HSIC from tr(K̃L̃), 1ᵀK̃1 · 1ᵀL̃1 and 1ᵀK̃L̃1; that factor leaves with the quotient."""
    return product + totals / ((n - 1) * (n - 2)) - 2 / (n - 2) * overlap
