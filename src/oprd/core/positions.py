"""Which response tokens are supervised.

Row t of a response is the state that predicts its token t: for tokens at sequence indices
P..P+K−1 those are the states at P−1..P+K−2. Masks here are over response tokens, so every term
that uses one supervises the same positions.

Letters: B sequences, K response tokens, T all tokens, N selected rows, D width.
"""

from typing import Literal, get_args

from torch import Tensor

PositionSpec = Literal["all", "last", "first_k", "last_k", "divergence"]


def select_positions(mask: Tensor, spec: PositionSpec, k: int | None = None) -> Tensor:
    """Select supervised positions by their index among the true entries of each row.

    Holes in the mask (tool output, padding on either side) are skipped, not counted: `last_k` is
    the last k true entries wherever they stand. A row with fewer than k keeps all it has.

    Args:
        mask: [B, K], true (or non-zero) at response tokens.
        spec: `"all"`, `"last"` (the last true entry), `"first_k"` or `"last_k"`; `"divergence"`
            selects all, which a loss weighs once it knows the states (`divergence_weights`).
        k: how many, for `"first_k"` and `"last_k"`.

    Returns:
        [B, K] bool, a subset of the mask.

    Raises:
        ValueError: the specification is unknown, or `k` is missing or below 1 where it is needed.
    """
    if spec not in get_args(PositionSpec):
        raise ValueError(f"positions must be one of {get_args(PositionSpec)}, got {spec!r}.")
    if mask.ndim != 2:
        raise ValueError(f"mask must be [B, K], got shape {tuple(mask.shape)}.")
    selected = mask.bool()
    if spec in ("all", "divergence"):
        return selected
    if spec == "last":
        k = 1
    elif k is None or k < 1:
        raise ValueError(f"positions={spec!r} needs k of at least 1, got {k}.")
    rank = selected.cumsum(dim=1)
    if spec == "first_k":
        return selected & (rank <= k)
    return selected & (rank > rank[:, -1:] - k)


def row_index(mask: Tensor) -> Tensor:
    """Indices [N] of a [B, T] mask's true entries in row-major order, for `gather_rows`."""
    return mask.flatten().nonzero().squeeze(1)


def gather_rows(states: Tensor, index: Tensor) -> Tensor:
    """The rows of [B, T, D] states at an index of `row_index`: [N, D]."""
    return states.flatten(0, 1).index_select(0, index.to(states.device))
