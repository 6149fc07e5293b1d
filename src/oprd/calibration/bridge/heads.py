"""Both models' LM heads in the fit of a bridge: whether they can be read, and on which rows."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from oprd.calibration.bridge.settings import FitSettings
from oprd.core.bridge.bases import by_pair, check_last, last_pair, reads_heads
from oprd.core.bridge.heads import HeadPair, HeadStatistics
from oprd.core.capture import num_layers
from oprd.core.layers import LayerPair, measures
from oprd.core.output.head import chunks
from oprd.log import get_logger
from oprd.models.heads import lm_head, whole
from oprd.models.matching import pair_models

# Their metric is an average over the teacher's distributions, each as long as the vocabulary: it
# settles long before a regression does.
MOST_ROWS = 4096

logger = get_logger(__name__)


# Ids of the student and of the teacher that are spelled alike, of two vocabularies.
Common = tuple[Tensor, Tensor] | None


def both_heads(student: Any, teacher: Any, common: Common = None) -> HeadPair:
    """The LM heads of two models as they are, over tokens that mean the same.

    Args:
        student: a causal language model.
        teacher: likewise.
        common: the tokens; None where ids mean the same.

    Raises:
        ValueError: one cannot be read; see `lm_head`.
    """
    heads = whole(lm_head(student)), whole(lm_head(teacher))
    if common is None:
        return HeadPair(*heads)
    there = torch.ones_like(common[0], dtype=torch.bool)
    for head, ids in zip(heads, common, strict=True):
        # A tokenizer may know more than its model.
        there &= ids < head.vocab_size
    return HeadPair(*(head.take(ids[there]) for head, ids in zip(heads, common, strict=True)))


def heads_of_last(
    student: Any, teacher: Any, pairs: Sequence[LayerPair], common: Common = None
) -> HeadPair | None:
    """Both LM heads where the last pair is that of the states that they read, and can be read."""
    if tuple(last_pair(pairs)) != (num_layers(student), num_layers(teacher)):
        return None
    try:
        return both_heads(student, teacher, common)
    except ValueError:
        return None


class Carried:
    """How much of a teacher's probability falls on tokens that both models have.

    Args:
        teacher: a causal language model, whose LM head is read whole.
        ids: of these tokens.
    """

    def __init__(self, teacher: Any, ids: Tensor) -> None:
        self._head = whole(lm_head(teacher)).detach()
        self._ids = ids[ids < self._head.vocab_size].to(self._head.weight.device)

    def __call__(self, rows: Tensor) -> float:
        """The sum over last states [N, H] of Σ_v q(v)."""
        total = 0.0
        for part in chunks(len(rows), self._head.vocab_size):
            logits = rows.new_empty((len(rows[part]), self._head.vocab_size), dtype=torch.float32)
            q = self._head.logits(rows[part], out=logits).softmax(dim=1)
            total += float(q[:, self._ids].sum())
        return total


def check_heads(student: Any, teacher: Any, layers: Sequence[int], settings: FitSettings) -> None:
    """Refuse, before anything is read, LM heads that cannot serve the basis of a fit.

    Args:
        student: a causal language model.
        teacher: likewise.
        layers: of the student, that will be paired.
        settings: of the fit.

    Raises:
        ValueError: one cannot be read, or they would serve other states than the last ones.
    """
    both_heads(student, teacher)
    depths = num_layers(student), num_layers(teacher)
    pairs: Sequence[LayerPair] = [LayerPair(layer, depths[1]) for layer in layers]
    if not measures(settings.layer_pairing):
        pairs = pair_models(student, teacher, settings.layers, settings.layer_pairing)
    by_pair(settings.basis, pairs)
    check_last(last_pair(pairs), depths)


def head_statistics(
    student: Any,
    teacher: Any,
    pairs: Sequence[LayerPair],
    settings: FitSettings,
    rows: int,
    common: Common = None,
) -> HeadStatistics | None:
    """Both LM heads, to be weighed on some of so many rows; None where the basis needs none.

    Raises:
        ValueError: the last pair is not that of both models' last layers.
    """
    if not reads_heads(settings.basis):
        return None
    check_last(last_pair(pairs), (num_layers(student), num_layers(teacher)))
    heads = both_heads(student, teacher, common)
    if heads.capped:
        logger.warning(
            "basis='heads': an LM head caps its logits, and they are compared before the cap."
        )
    every = max(1, math.ceil(rows / MOST_ROWS))
    return HeadStatistics(heads, settings.heads_metric, every=every, device=sums_device(student))


def sums_device(model: Any) -> torch.device:
    """Where sums of a model's rows are kept: elsewhere than on CUDA no float64 is off the CPU."""
    return model.device if model.device.type == "cuda" else torch.device("cpu")
