"""A batch shifted so that each sequence's supervised window starts in the same column.

Letters: B sequences, T tokens, P columns of prefixes, W columns of windows, N rows, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Windows:
    """Prefixes and windows, cut from a batch and laid beside each other.

    Attributes:
        input_ids: [B, P + W].
        attention_mask: [B, P + W], 1 at tokens that are read.
        columns: [B, P + W], where each column stood in the batch.
        inside: [B, P + W] bool, false at padding that the shift brought in.
        prefix: P, at least 1.
    """

    input_ids: Tensor
    attention_mask: Tensor
    columns: Tensor
    inside: Tensor
    prefix: int

    @classmethod
    def of(
        cls, input_ids: Tensor, attention_mask: Tensor, window: Tensor, kept: Tensor
    ) -> "Windows":
        """Shift the sequences of a batch, and leave out what nothing depends on.

        A sequence's window starts at its first row in `window` and ends at its last row in either
        mask. Prefixes and windows are at least one column wide, of padding if need be, so that
        every process of a sharded model runs the same forward passes.

        Args:
            input_ids: [B, T].
            attention_mask: [B, T], 1 at real tokens.
            window: [B, T] bool.
            kept: [B, T] bool, further rows that are wanted.
        """
        length, device = input_ids.shape[1], input_ids.device
        first = attention_mask.int().argmax(dim=1)
        start = window.int().argmax(dim=1)
        end = ((window | kept) * torch.arange(1, length + 1, device=device)).amax(dim=1)
        widest = torch.stack([(start - first).max(), (end - start).max()]).clamp(min=1)
        prefix, width = widest.tolist()
        columns = torch.arange(-prefix, width, device=device) + start[:, None]
        inside = (columns >= 0) & (columns < end[:, None])
        columns = columns.clamp(0, length - 1)
        return cls(
            input_ids.gather(1, columns),
            attention_mask.gather(1, columns) * inside,
            columns,
            inside,
            prefix,
        )

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The parts of a [B, T] mask in the prefixes, [B, P], and in the windows, [B, W]."""
        shifted = rows.gather(1, self.columns) & self.inside
        return shifted[:, : self.prefix], shifted[:, self.prefix :]


def join_rows(masks: tuple[Tensor, Tensor], states: tuple[Tensor, Tensor]) -> Tensor:
    """The rows of two neighbouring parts of a batch, in the order of the whole.

    Args:
        masks: [B, P] and [B, W] bool.
        states: each mask's rows in row-major order, [N, D].
    """
    left, right = masks
    from_right = torch.cat([torch.zeros_like(left), torch.ones_like(right)], dim=1)
    order = from_right[torch.cat(masks, dim=1)].argsort(stable=True).argsort()
    return torch.cat(states).index_select(0, order)
