"""Distributions of two vocabularies, at every response token that can be compared.

The student's state that predicts a token meets the teacher's that has read the most of what it has.
By the bytes that the student is ahead the tokens of both form other classes, so that there is a
pair for each of these.

Letters: B sequences, K response tokens, M of them that are compared, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from oprd.core.output.head import LMHead
from oprd.core.output.pair import Pair, select_pair
from oprd.models.batch import MicroBatch
from oprd.models.token_classes import TokenClasses


@dataclass(frozen=True)
class Aligned:
    """How a run compares distributions with a teacher of other tokens.

    Attributes:
        classes: of both vocabularies.
        aheads: what the student may be ahead by, by its place in a batch.
    """

    classes: TokenClasses
    aheads: Sequence[bytes]

    def pairs(
        self,
        batch: MicroBatch,
        rows: tuple[Tensor, Tensor],
        heads: tuple[LMHead, LMHead],
        temperature: float,
    ) -> list[Pair]:
        """Both models' rows, those together whose tokens form the same classes.

        Where there is but one way to go on, both models agree, and there is no pair. If there is
        none at all, a pair without rows stands for it: the student's head has its part in a graph.

        Args:
            batch: with what the student is ahead by.
            rows: [M, D] the student's, and the teacher's that are compared with any, once each.
            heads: of both.
            temperature: divides both models' logits.
        """
        assert batch.ahead is not None
        device, response = heads[0].weight.device, batch.response.to(heads[0].weight.device)
        found: list[Pair] = []
        ahead, theirs = batch.ahead.to(device)[response], teacher_rows(batch).to(device)
        for place in ahead.unique().tolist():
            classes = self.classes.after(self.aheads[place], device)
            if classes is None:
                continue
            here = ahead == place
            mask = torch.zeros_like(response)
            mask[response] = here
            both = rows[0].to(device)[here], rows[1].to(device)[theirs[here]]
            found.append(select_pair(*both, *heads, mask, temperature, classes=classes))
        if not found:
            both = rows[0].to(device)[:0], rows[1].to(device)[:0]
            classes, mask = self.classes.met.to(device), torch.zeros_like(response)
            found.append(select_pair(*both, *heads, mask, temperature, classes=classes))
        return found


def teacher_rows(batch: MicroBatch) -> Tensor:
    """[M], which of the teacher's rows each compared token of the student's meets.

    The teacher's stand in the order of their sequences and states, each once, and those that the
    student's tokens meet never go back.
    """
    assert batch.behind is not None
    sequence, state = batch.response.nonzero()[:, 0], batch.behind[batch.response]
    others = torch.ones_like(state, dtype=torch.bool)
    others[1:] = (sequence[1:] != sequence[:-1]) | (state[1:] != state[:-1])
    return others.cumsum(0) - 1
