"""Rollouts of a micro-batch: what the student wrote, and what of it is supervised.

Letters: B sequences, K response tokens, T all tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from oprd.models.reading import View
from oprd.models.views import Views, views_in

# Keys of a generation batch: [B, A], see the attributes.
SHARES, READS = "teacher_shares", "teacher_reads"
# [B], how many tokens of each response, the first ones, the teacher wrote.
BY_TEACHER = "by_teacher"
# [B], the place of each response among those of this process; and [B, K], its tokens'
# log-probabilities for the student that wrote it, NaN where they are not known.
PLACE, WRITTEN_LOG_PROBS = "place", "written_log_probs"
# [B, K], of a teacher that reads its own tokens: bool, where its distributions are compared with
# the student's; which of its states has read the most of what the student's has; and by what bytes
# the student's is ahead, a place in `OwnTokens.aheads`.
COMPARED, BEHIND, AHEAD = "compared", "teacher_behind", "teacher_ahead"
# Those of them that a micro-batch takes as they are, by its attributes.
TABLES = {
    "shares": SHARES,
    "reads": READS,
    "by_teacher": BY_TEACHER,
    "place": PLACE,
    "written_log_probs": WRITTEN_LOG_PROBS,
    "behind": BEHIND,
    "ahead": AHEAD,
}
# Keys of a TRL batch that are inputs of a multimodal base model.
MULTIMODAL_KEYS = (
    "pixel_values",
    "image_grid_thw",
    "pixel_attention_mask",
    "spatial_shapes",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
)


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """Rollouts, and what of them is supervised.

    Attributes:
        view: what the student reads, prompts and responses.
        response_ids: [B, K], the responses.
        response: [B, K] bool, true at tokens that the student wrote: output terms supervise these.
            A teacher with tokens of its own leaves out what it cannot be compared at.
        positions: [B, K] bool, those of them that the representation term supervises.
        response_count: what the output term is divided by, over the whole generation batch.
        position_count: what the representation term is divided by, likewise.
        use: which update on these rollouts this is, from 0.
        comes_again: whether there will be another one.
        kept: what an update leaves for the next ones on these rollouts.
        taught: what teachers read, by their names; the student's own view for others.
        shares: [B, A], what the losses of each sequence are multiplied by for each of several
            teachers; None for one.
        by_teacher: [B], how many tokens of each response, the first ones, the teacher wrote; None
            where the student wrote all.
        place: [B], of each response among those of this process in the whole generation batch; None
            where nobody asks.
        written_log_probs: [B, K], of the tokens that the student drew, as it was then; NaN where
            they are not known, None where none is.
        behind: [B, K], see `BEHIND`; None for a teacher of the student's tokens.
        ahead: [B, K], see `AHEAD`, likewise.
        reads: [B, A] bool, whether a teacher has a sequence in the whole generation batch, in any
            process; alike in all rows.
    """

    view: View
    response_ids: Tensor
    response: Tensor
    positions: Tensor
    response_count: Tensor
    position_count: Tensor
    use: int = 0
    comes_again: bool = False
    kept: dict[str, Any] = field(default_factory=dict)
    taught: Mapping[str, Views] = field(default_factory=dict)
    shares: Tensor | None = None
    reads: Tensor | None = None
    by_teacher: Tensor | None = None
    place: Tensor | None = None
    written_log_probs: Tensor | None = None
    behind: Tensor | None = None
    ahead: Tensor | None = None

    @property
    def own(self) -> Tensor:
        """[B, K] bool: the response tokens that the student drew itself."""
        if self.by_teacher is None:
            return self.response
        place = torch.arange(self.response.shape[1], device=self.response.device)
        return self.response & (place >= self.by_teacher[:, None])

    @classmethod
    def of_rollouts(
        cls,
        input_ids: Tensor,
        attention_mask: Tensor,
        response: Tensor,
        positions: Tensor,
        *,
        response_count: Tensor,
        position_count: Tensor,
        extra: dict[str, Any] | None = None,
    ) -> "MicroBatch":
        """Rollouts whose last K columns are the responses; see the attributes and `View`."""
        return cls(
            View.of_rollouts(input_ids, attention_mask, response, positions, extra),
            input_ids[:, input_ids.shape[1] - response.shape[1] :],
            response,
            positions,
            response_count,
            position_count,
        )

    @classmethod
    def of(cls, inputs: dict[str, Any], *, use: int = 0, comes_again: bool = False) -> "MicroBatch":
        """A micro-batch of TRL's, with the keys that `Rollouts.supervise` adds."""
        batch = cls.of_rollouts(
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            compared(inputs),
            inputs["positions"],
            response_count=inputs["response_count"],
            position_count=inputs["supervised_count"],
            extra={key: inputs[key] for key in MULTIMODAL_KEYS if key in inputs},
        )
        # TRL gives out the same mapping for every update on these rollouts.
        kept = inputs.setdefault("kept", {})
        masks = batch.response, batch.positions
        taught = {name: Views.of_rollouts(inputs, *masks, name) for name in views_in(inputs)}
        tables = {name: inputs.get(key) for name, key in TABLES.items()}
        uses = {"use": use, "comes_again": comes_again, "kept": kept}
        return replace(batch, **uses, taught=taught, **tables)

    def take(self, index: Tensor) -> "MicroBatch":
        """Some of its sequences, by their index [b]; counts are those of all.

        Raises:
            ValueError: it has pictures, which stand by no sequence.
        """
        return replace(
            self,
            view=self.view.take(index),
            response_ids=self.response_ids[index],
            response=self.response[index],
            positions=self.positions[index],
            taught={name: views.take(index) for name, views in self.taught.items()},
            **{name: of[index] for name in TABLES if (of := getattr(self, name)) is not None},
        )

    def unsupervised(self) -> "MicroBatch":
        """Its first sequence, of which nothing is supervised: something to read."""
        first = self.take(torch.zeros(1, dtype=torch.long, device=self.positions.device))
        return replace(
            first,
            view=first.view.unsupervised(),
            response=torch.zeros_like(first.response),
            positions=torch.zeros_like(first.positions),
            taught={name: views.unsupervised() for name, views in first.taught.items()},
        )


def written(output: dict[str, Any]) -> Tensor:
    """[B, K] bool: what the student wrote, without padding and without what tools returned."""
    mask = output["completion_mask"].bool()
    return mask & output["tool_mask"].bool() if "tool_mask" in output else mask


def compared(output: dict[str, Any]) -> Tensor:
    """[B, K] bool: where output terms compare distributions, and drift is measured."""
    return output[COMPARED] if COMPARED in output else written(output)
