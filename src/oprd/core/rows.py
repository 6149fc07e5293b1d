"""Rows of states chosen by a mask: gathered without a copy of anything else.

Letters: B sequences, T tokens, N selected rows, D width.
"""

from torch import Tensor


def row_index(mask: Tensor) -> Tensor:
    """Indices [N] of a [B, T] mask's true entries in row-major order, for `gather_rows`."""
    return mask.flatten().nonzero().squeeze(1)


def gather_rows(states: Tensor, index: Tensor) -> Tensor:
    """The rows of [B, T, D] states at an index of `row_index`: [N, D]."""
    return states.flatten(0, 1).index_select(0, index.to(states.device))
