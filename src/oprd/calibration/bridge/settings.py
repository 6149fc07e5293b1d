"""What is fitted, and on which rows."""

import math
from dataclasses import dataclass
from typing import get_args

from oprd.core.bridge.bases import CHOICES, reads_heads
from oprd.core.bridge.heads import METRICS, HeadsMetric
from oprd.core.layers import check_pairing
from oprd.core.positions import PositionSpec
from oprd.values import check_choice


@dataclass(frozen=True)
class FitSettings:
    """Of a fit.

    Attributes:
        rank: R, the dimensions of the shared space; not of LM heads.
        basis: how directions are chosen, a name in `oprd.core.bridge.bases.CHOICES`. "heads" reads
            both LM heads, for the last pair alone; "pca+heads" and the like do so above others.
        heads_metric: in which both LM heads' logits are compared, see `oprd.core.bridge.heads`.
        heads_rank: R of the pair of LM heads; None for all that the student's can tell apart.
        center: remove the student's mean; False is Eq. 13 to the letter.
        ridge: of the regression, relative to the student's mean variance; None for the one that
            carries over best to the rows held out, layer by layer.
        layers: which student layers.
        layer_pairing: which teacher layers they meet: a name in `oprd.core.layers.PAIRINGS`, or
            pairs such as "1:1,2:3". "similarity" is measured on the rollouts of the fit.
        positions: which response tokens.
        position_k: how many, for `"first_k"` and `"last_k"`.
        max_rows: read no more rows than this.
        batch_size: rollouts that are read at once.
        seed: of the draws of `basis="fisher"` and of rows for `layer_pairing="similarity"`.

    Raises:
        ValueError: a value is illegal; the message names it.
    """

    rank: int = 8
    basis: str = "pca"
    heads_metric: HeadsMetric = "centered"
    heads_rank: int | None = None
    center: bool = True
    ridge: float | None = None
    layers: str | tuple[int, ...] = "all"
    layer_pairing: str = "proportional"
    positions: PositionSpec = "last_k"
    position_k: int = 2000
    max_rows: int | None = None
    batch_size: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "heads_rank", "position_k", "batch_size", "max_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        check_pairing(self.layer_pairing, self.layers)
        check_choice("basis", self.basis, CHOICES)
        check_choice("heads_metric", self.heads_metric, METRICS)
        if self.heads_rank is not None and not reads_heads(self.basis):
            raise ValueError(f"heads_rank={self.heads_rank} is for basis='heads' or 'pca+heads'.")
        check_choice("positions", self.positions, get_args(PositionSpec))
        if self.ridge is not None and not (math.isfinite(self.ridge) and self.ridge >= 0):
            raise ValueError(f"ridge must be 0 or more and finite, got {self.ridge}.")
