"""The comparison of a single layer, from whole states."""

from typing import Any

from torch import Tensor

from oprd.core.layers import LayerPair
from oprd.core.positions import gather_rows, row_index
from oprd.core.reduction import LossSum
from oprd.core.states.comparison import PLAIN, LayerComparison
from oprd.core.states.loss import StateLoss


def representation_loss(
    student: Tensor, teacher: Tensor, mask: Tensor, loss: StateLoss = PLAIN, **options: Any
) -> LossSum:
    """Total and count of states [B, K, S] and [B, K, H] where a mask [B, K] is true."""
    index = row_index(mask)
    rows = {1: gather_rows(teacher, index)}
    comparison = LayerComparison(rows, (LayerPair(1, 1),), mask, loss, **options)
    comparison(1, gather_rows(student, index))
    return comparison.result().loss
