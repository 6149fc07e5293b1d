"""What a model reads of rollouts after other prompts than the student's, and what it makes of them.

The responses are the student's own, token by token, or the same text in the model's own tokens, so
that every reading has the same rows. Several prompts of one sequence are read one after another,
and their states averaged.

Letters: B sequences, P prompts of a sequence, S tokens of the longest of them, K response tokens,
M of them to a model with tokens of its own, N supervised rows, D width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from oprd.models.reading import Reading, View

# Beside the numbers of layers, what stands for the last one at all response tokens.
LAST = -1
# Keys of a generation batch: [B, P, S] token ids, their mask, and [B, P] weights; with the name of
# one of several teachers behind them.
PROMPT_IDS, PROMPT_MASK, WEIGHTS = "teacher_prompt_ids", "teacher_prompt_mask", "teacher_weights"
# Likewise of a teacher that reads its own tokens: [B, M + 1] token ids, their mask, and bool, true
# where the state before that token meets a supervised one of the student's, and where its
# distribution is compared with one. The last column is never read: the state before it is the one
# after the last token.
OWN_IDS, OWN_MASK = "teacher_own_ids", "teacher_own_mask"
OWN_ROWS, OWN_RESPONSE = "teacher_own_rows", "teacher_own_response"


@dataclass(frozen=True, eq=False)
class Views:
    """The views in which a model reads a micro-batch, over which its states are averaged.

    Attributes:
        views: at least one; the rows of all meet row by row.
        weights: [B, P], which sum to 1 in every sequence; None for one view.

    Raises:
        ValueError: there is no view, or not a weight for each.
    """

    views: tuple[View, ...]
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        weights = 1 if self.weights is None else self.weights.shape[1]
        if not self.views or weights != len(self.views):
            raise ValueError(f"{len(self.views)} views need as many weights, got {weights}.")

    @classmethod
    def of_rollouts(
        cls, inputs: Mapping[str, Any], response: Tensor, positions: Tensor, name: str = ""
    ) -> "Views":
        """The views that `add_prompts` made ready, and `own_tokens.add_responses` where it did.

        Args:
            inputs: a micro-batch of TRL's, with `completion_ids` and `completion_mask` [B, K].
            response: [B, K] bool, true at tokens that the student wrote.
            positions: [B, K] bool, those of them that are supervised.
            name: of the teacher.
        """
        ids, mask = inputs["completion_ids"], inputs["completion_mask"]
        if OWN_IDS + name in inputs:
            keys = (OWN_IDS, OWN_MASK, OWN_RESPONSE, OWN_ROWS)
            ids, mask, response, positions = (inputs[key + name] for key in keys)
        tables = inputs[PROMPT_IDS + name].unbind(1), inputs[PROMPT_MASK + name].unbind(1)
        prompts = zip(*tables, strict=True)
        views = tuple(
            View.of_rollouts(
                torch.cat([prompt, ids], dim=1),
                torch.cat([there, mask], dim=1),
                response,
                positions,
            )
            for prompt, there in prompts
        )
        return cls(views, inputs[WEIGHTS + name] if len(views) > 1 else None)

    def take(self, index: Tensor) -> "Views":
        """Those of some of the sequences, by their index [b]."""
        weights = None if self.weights is None else self.weights[index]
        return Views(tuple(view.take(index) for view in self.views), weights)

    def unsupervised(self) -> "Views":
        """The same tokens, of which no state counts."""
        return Views(tuple(view.unsupervised() for view in self.views), self.weights)

    def read(self, one: Callable[[View], Reading]) -> Reading:
        """The mean of what `one` reads of every view; of a single view, what it reads."""
        if self.weights is None:
            return one(self.views[0])
        total: Reading | None = None
        dtypes: dict[int, torch.dtype] = {}
        for view, weights in zip(self.views, self.weights.unbind(1), strict=True):
            reading = one(view)
            dtypes = {layer: rows.dtype for layer, rows in reading.states.items()}
            dtypes[LAST] = torch.float32 if reading.last is None else reading.last.dtype
            total = _added(total, reading, view, weights)
        assert total is not None
        states = {layer: rows.to(dtypes[layer]) for layer, rows in total.states.items()}
        return Reading(states, None if total.last is None else total.last.to(dtypes[LAST]))


def _added(total: Reading | None, reading: Reading, view: View, weights: Tensor) -> Reading:
    """The total with a reading in it, each row by the weight [B] of its sequence, in float32."""

    def weighed(states: Tensor, rows: Tensor) -> Tensor:
        return states * weights[rows.nonzero()[:, 0], None].to(states.device)

    states = {layer: weighed(rows, view.rows) for layer, rows in reading.states.items()}
    last = None if reading.last is None else weighed(reading.last, view.response)
    if total is None:
        return Reading(states, last)
    for layer, rows in states.items():
        total.states[layer].add_(rows)
    if total.last is not None and last is not None:
        total.last.add_(last)
    return total


def views_in(inputs: Mapping[str, Any]) -> list[str]:
    """The teachers that have views of their own in a batch, by name."""
    return [key.removeprefix(PROMPT_IDS) for key in inputs if key.startswith(PROMPT_IDS)]


def add_prompts(
    output: dict[str, Any],
    prompts: Sequence[Sequence[Sequence[int]]],
    pad: int,
    count: int,
    name: str = "",
) -> None:
    """Add to a generation batch what a teacher reads in the place of its prompts.

    A sequence with fewer prompts than `count` reads its first one again with a weight of zero, so
    that all processes make equally many forward passes.

    Args:
        output: TRL's, of B sequences.
        prompts: of each sequence one or more, as token ids.
        pad: an id that fills up on the left.
        count: P.
        name: of the teacher.
    """
    full = [[*several, *[several[0]] * (count - len(several))] for several in prompts]
    longest = max(len(ids) for several in full for ids in several)
    device = output["completion_ids"].device

    def table(row: Callable[[Sequence[int]], list[int]]) -> Tensor:
        return torch.tensor([[row(ids) for ids in several] for several in full], device=device)

    output[PROMPT_IDS + name] = table(lambda ids: [pad] * (longest - len(ids)) + list(ids))
    output[PROMPT_MASK + name] = table(lambda ids: [0] * (longest - len(ids)) + [1] * len(ids))
    shares = [[1 / len(own)] * len(own) + [0.0] * (count - len(own)) for own in prompts]
    output[WEIGHTS + name] = torch.tensor(shares, device=device)
