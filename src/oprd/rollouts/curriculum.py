"""Prompts that come again sooner, the further the student is from its teacher on them.

A part of each step's prompts comes in the usual order, so that every epoch passes all of them. The
others are drawn among those that were met, as likely as their last rollouts' states were far from
the teacher's.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import Dataset

from oprd.log import get_logger
from oprd.prompts.fingerprint import prompts_fingerprint
from oprd.rollouts.sampler import EPOCH_STRIDE
from oprd.runs.atomic import written_whole
from oprd.settings.run import OPRDConfig

# In a checkpoint.
FILE = "curriculum.safetensors"
# In that file: which prompts it is about.
PROMPTS = "prompts"
# Of a row: its place in the dataset.
NUMBER = "_number"

logger = get_logger(__name__)


class Numbered(Dataset[dict[str, Any]]):
    """A dataset whose rows say where they stand."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __len__(self) -> int:
        """Rows."""
        return len(self._rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        """The row of a place."""
        return {**self._rows[place], NUMBER: place}


class Curriculum:
    """How far the student is from its teacher on each prompt, and which come again.

    Args:
        args: of the run.
        rows: of the dataset.
        process: this one's number.
        processes: how many there are.

    Attributes:
        ratio: the mean distance on what was drawn last, beside that on all prompts that were met.
    """

    def __init__(self, args: OPRDConfig, rows: Any, process: int, processes: int) -> None:
        self._args, self._rows = args, Numbered(rows)
        self._prompts = (prompts_fingerprint(rows) or {}).get("hash", "")
        self._process, self._processes = process, processes
        self._errors = torch.full((len(rows),), torch.nan, dtype=torch.float64)
        self._extended: list[dict[str, Any]] = []
        self._met: list[tuple[Tensor, Tensor]] = []
        self.ratio = 1.0

    @property
    def bytes(self) -> int:
        """Of its file in a checkpoint."""
        return self._errors.element_size() * len(self._errors)

    def forget(self) -> None:
        """Begin anew."""
        self._errors.fill_(torch.nan)
        self._extended, self._met = [], []

    def extended(
        self, rows: Sequence[Mapping[str, Any]], step: int, *, begins: bool
    ) -> list[dict[str, Any]]:
        """What is written at once: rows of the usual order, and those that are drawn.

        Args:
            rows: of this process, those of every step that is written at once after each other.
            step: of the run, from 0.
            begins: whether it is about to be written; otherwise it is what was drawn then.
        """
        if not begins and self._extended:
            return self._extended
        ahead, each = self._args.rollouts_ahead, self._args.rollouts_per_prompt
        loaded = len(rows) // ahead
        count = (self._args.written_per_step - self._args.loaded_per_step) // each
        numbers = self._draw(count * ahead, step)
        self.ratio = 1.0
        if numbers:
            self.ratio = float(self._errors[numbers].mean() / self._errors.nanmean())
        found: list[dict[str, Any]] = []
        for turn in range(ahead):
            usual = [dict(row) for row in rows[turn * loaded : (turn + 1) * loaded]]
            again = [
                place for place in range(turn * count, (turn + 1) * count) for _ in range(each)
            ]
            own = len(again) // self._processes
            slots = again[self._process * own : (self._process + 1) * own]
            found += usual
            found += [
                self._rows[numbers[place]]
                if place < len(numbers)
                # Until enough were met, prompts of the step are asked once more.
                else dict(usual[n * loaded // own])
                for n, place in enumerate(slots)
            ]
        self._extended = found
        return found

    def meet(
        self,
        rows: Sequence[Mapping[str, Any]],
        places: Tensor,
        positions: Tensor,
        distances: Tensor | None,
    ) -> None:
        """Take in how far the states of a micro-batch are apart.

        Args:
            rows: of this process's batch, among them those of earlier steps, whose prompts the
                dataset may have no more: they are passed over.
            places: [B], of the sequences in it.
            positions: [B, K] bool, the N that are supervised.
            distances: [N], their losses; None where states were not compared.
        """
        if distances is None:
            return
        mask = positions.to(distances.device)
        grid = torch.zeros(mask.shape, dtype=distances.dtype, device=mask.device)
        grid[mask] = distances
        numbers = torch.tensor([self._number(rows[place]) for place in places.tolist()])
        numbers = numbers.to(mask.device)
        # NaN where a sequence has none, or its prompt no place.
        means = (grid.sum(dim=1) / mask.sum(dim=1)).masked_fill(numbers < 0, torch.nan)
        self._met.append((numbers.to(means), means))

    def learn(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Take in what all processes met in an update.

        Args:
            gather: rows of a tensor, of all processes.
        """
        met, self._met = self._met, []
        if not met:
            return
        pairs = torch.stack([torch.cat(part) for part in zip(*met, strict=True)], dim=1)
        pairs = gather(pairs).double().cpu()
        pairs = pairs[~pairs[:, 1].isnan()]
        numbers, places = pairs[:, 0].long().unique(return_inverse=True)
        totals = torch.zeros(len(numbers), 2, dtype=torch.float64)
        totals.index_add_(0, places, torch.stack([pairs[:, 1], torch.ones(len(pairs))], dim=1))
        self._errors[numbers] = totals[:, 0] / totals[:, 1]

    def save(self, checkpoint: Path, *, write: bool) -> None:
        """Keep it in a checkpoint: it is the same in all processes, of which one writes."""
        if write:
            with written_whole(checkpoint / FILE) as file:
                # Not safetensors' save_file, which sets mode 0600 whatever the umask says.
                file.write_bytes(save({"errors": self._errors}, {PROMPTS: self._prompts}))

    def resume(self, checkpoint: Path) -> None:
        """Go on with what a checkpoint has; without any where it has none, or of other prompts.

        Raises:
            ValueError: it cannot be read.
        """
        self.forget()
        path = checkpoint / FILE
        if not path.exists():
            logger.warning(f"{str(checkpoint)!r} holds no {FILE}: the curriculum begins anew.")
            return
        try:
            with safe_open(path, "pt") as file:
                errors = file.get_tensor("errors")
                about = (file.metadata() or {}).get(PROMPTS)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{str(path)!r} cannot be read ({error}): start anew.") from error
        if len(errors) != len(self._errors):
            logger.warning(
                f"{str(path)!r} is about {len(errors)} prompts, and there are "
                f"{len(self._errors)}: the curriculum begins anew."
            )
        # One of an earlier version does not say it.
        elif about not in (None, self._prompts):
            logger.warning(f"{str(path)!r} is about other prompts: the curriculum begins anew.")
        else:
            self._errors = errors

    def _number(self, row: Mapping[str, Any]) -> int:
        """Where the prompt of a row stands in the dataset, -1 where another one does."""
        number = row.get(NUMBER, -1)
        if not 0 <= number < len(self._rows):
            return -1
        return number if self._rows[number]["prompt"] == row["prompt"] else -1

    def _draw(self, count: int, step: int) -> list[int]:
        """Places of prompts that were met, without one twice; in all processes the same."""
        met = (~self._errors.isnan()).nonzero()[:, 0]
        seed = (self._args.seed + EPOCH_STRIDE * step) % 2**63
        generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(len(met), generator=generator, dtype=torch.float64)
        # The smallest of exponential variables with these rates is each one's with its share.
        times = -uniform.log() / self._errors[met].clamp(min=torch.finfo(torch.float64).tiny)
        return met[times.argsort()[:count]].tolist()
