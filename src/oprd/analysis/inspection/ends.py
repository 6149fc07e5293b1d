"""How alike states are on the first and on the last k tokens of responses (Fig. 8).

Letters: N rows of a batch, P pairs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from oprd.calibration.reading import PairedRows
from oprd.calibration.selection import Selection
from oprd.core.layers import LayerPair

# Values of k in a curve.
POINTS = 48


class Ends:
    """Cosines of pairs by their place in the response, over all that is read.

    Args:
        pairs: whose layers have one width.
    """

    def __init__(self, pairs: Sequence[LayerPair]) -> None:
        self._pairs = pairs
        # By place: sums of the last pair's cosine and of the mean over pairs, and a count.
        self._from_first = torch.zeros(0, 3, dtype=torch.float64)
        self._from_last = torch.zeros(0, 3, dtype=torch.float64)
        # The same of the first and the last quarter, each response's own.
        self._quarters = torch.zeros(2, 3, dtype=torch.float64)

    def add(self, batch: Sequence[Selection], rows: PairedRows) -> None:
        """See `Observer`."""
        cosines = torch.stack(
            [
                functional.cosine_similarity(
                    rows.student[pair.student].float(), rows.teacher[pair.teacher].float(), dim=1
                )
                for pair in self._pairs
            ]
        ).cpu()
        values = torch.stack([cosines[-1], cosines.mean(dim=0), torch.ones(cosines.shape[1])])
        places = [selection.positions.nonzero()[:, 0] for selection in batch]
        lengths = [len(selection.positions) for selection in batch]
        ends = [length - 1 - place for length, place in zip(lengths, places, strict=True)]
        longest = max(lengths)
        self._from_first = _added(self._from_first, torch.cat(places), values, longest)
        self._from_last = _added(self._from_last, torch.cat(ends), values, longest)
        for sums, away in zip(self._quarters, (places, ends), strict=True):
            near = [4 * place < length for place, length in zip(away, lengths, strict=True)]
            sums += values[:, torch.cat(near)].sum(dim=1)

    def curve(self) -> dict[str, Any]:
        """Means on the first and last k tokens, for values of k up to the longest response.

        A response shorter than k gives all that it has; each token weighs the same.

        Returns:
            the values of `k`, the index among them of a `quarter` of the longest response; under
            `first_k` and `last_k` the cosines of the last pair, `last`, and of the mean over
            pairs, `mean`; and under `quarters` those of the first and of the last quarter of each
            response, [first, last].
        """
        longest = len(self._from_first)
        ks = torch.logspace(0, torch.tensor(longest).log10(), POINTS).round().long().unique()
        quarter = int((ks - longest / 4).abs().argmin())
        return {
            "k": ks.tolist(),
            "quarter": quarter,
            "first_k": _means(self._from_first.cumsum(dim=0)[ks - 1]),
            "last_k": _means(self._from_last.cumsum(dim=0)[ks - 1]),
            "quarters": _means(self._quarters),
        }


def _means(sums: Tensor) -> dict[str, list[float]]:
    """Of sums [..., 3] of two figures and a count, which a draw of positions may leave at 0."""
    last, mean, count = sums.T
    count = count.clamp(min=1)
    return {"last": (last / count).tolist(), "mean": (mean / count).tolist()}


def _added(sums: Tensor, places: Tensor, values: Tensor, longest: int) -> Tensor:
    """Sums by place, at least `longest` of them, with values [3, N] added at places [N]."""
    grown = sums.new_zeros(max(len(sums), longest), 3)
    grown[: len(sums)] = sums
    return grown.index_add_(0, places, values.T.double())
