"""Supervised fine-tuning on given texts, in the place of a loss on states."""

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from oprd import OPRDTrainer
from oprd.models.batch import MicroBatch
from oprd.models.reading import position_ids


class Supervised(OPRDTrainer):
    """The loss is the cross-entropy of a response's tokens, a mean over those of the batch.

    It needs `reduction="token"`, of whose counts the denominator is one. The teacher reads nothing.
    """

    def _compute_loss(
        self,
        unwrapped_student: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None,
    ) -> Tensor:
        batch = MicroBatch.of(inputs)
        view = batch.view
        logits = unwrapped_student(
            input_ids=view.input_ids,
            attention_mask=view.attention_mask,
            position_ids=position_ids(view.attention_mask),
        ).logits
        written = batch.response_ids[batch.response]
        total = cross_entropy(logits[view.response].float(), written, reduction="sum")
        return total / batch.response_count.clamp(min=1)
