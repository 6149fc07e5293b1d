"""Rollouts of earlier steps that are learned from again, beside those that are written now.

A batch has F rollouts that are written for prompts in the usual order, C for those that a
curriculum asks again, and R that are drawn from the buffer. Each kind falls into gcd(F, C, R)
groups of equally many; a group draws from what was written for it alone, by random numbers of its
own. So processes that share a batch, each with its part of every kind, draw together what one of
them would, and exchange nothing.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from oprd.core.output.drift import drift
from oprd.log import get_logger
from oprd.rollouts.sampler import EPOCH_STRIDE
from oprd.rollouts.written import Rollout
from oprd.runs.atomic import written_whole
from oprd.settings.run import OPRDConfig

# In a checkpoint.
FILE = "replay.safetensors"
# Of a token, and of its log-probability.
_BYTES = 8

logger = get_logger(__name__)


class Replay:
    """This process's part of the buffer.

    Args:
        args: of the run.
        process: its number.
        processes: how many there are.

    Attributes:
        drawn: rollouts of the last batch that came out of the buffer.
        dropped: rollouts that left it since they were counted last, because the student has drifted
            too far from them.
    """

    def __init__(self, args: OPRDConfig, process: int, processes: int) -> None:
        self._args = args
        usual, again = args.loaded_per_step, args.replayed_per_step
        asked_again = args.written_per_step - usual
        self._all = math.gcd(usual, asked_again, again)
        count = self._all // processes
        self._first = count * process
        self._groups: list[list[Rollout]] = [[] for _ in range(count)]
        self._usual, self._asked_again = usual // self._all, asked_again // self._all
        self._again = again // self._all
        self.drawn = self.dropped = 0

    def mix(
        self, written: Sequence[Rollout], rows: Sequence[Mapping[str, Any]], step: int
    ) -> list[Rollout]:
        """Draw from the buffer for a batch, and keep what was written for it.

        Where the buffer has too few, as in a run's first step, some of what was written stand in
        the batch twice.

        Args:
            written: for the batch, by this process; those in the usual order stand first.
            rows: of the dataset, for which it was.
            step: of the run, from 0.

        Raises:
            ValueError: a row has what no JSON file can keep.
        """
        found: list[Rollout] = []
        self.drawn = 0
        for rollout, row in zip(written, rows, strict=True):
            rollout.row = row
        _as_text([dict(row) for row in rows[:1]])
        usual = len(self._groups) * self._usual
        kinds = (written[:usual], self._usual), (written[usual:], self._asked_again)
        for number, group in enumerate(self._groups):
            fresh = [r for kind, n in kinds for r in kind[number * n : (number + 1) * n]]
            kept = self._kept(group)
            seed = (
                self._args.seed + EPOCH_STRIDE * (step * self._all + self._first + number)
            ) % 2**63
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(len(kept), generator=generator)[: self._again].tolist()
            self.drawn += len(order)
            found += [kept[place] for place in order]
            found += [fresh[n % len(fresh)] for n in range(self._again - len(order))]
            # An empty response has nothing to learn from.
            kept += [rollout for rollout in fresh if rollout.response_ids]
            group[:] = kept[-self._capacity :]
        return found

    def forget(self) -> None:
        """Let everything go."""
        self._groups = [[] for _ in self._groups]
        self.drawn = self.dropped = 0

    @property
    def bytes(self) -> int:
        """Of its file in a checkpoint at most, but for prompts and rows; that of all processes."""
        return self._args.replay * (self._args.max_completion_length or 0) * _BYTES

    def save(
        self, checkpoint: Path, gather: Callable[[list[Any]], list[Any]], *, write: bool
    ) -> None:
        """Keep all processes' parts in a checkpoint; each of them calls it, and one writes.

        Args:
            checkpoint: the folder.
            gather: lists of all processes in one.
            write: whether this process does.
        """
        every: list[tuple[int, Rollout]] = gather(
            [(self._first + n, r) for n, group in enumerate(self._groups) for r in group]
        )
        if not write:
            return
        every.sort(key=lambda pair: pair[0])
        tokens = [token for _, r in every for token in (*r.prompt_ids, *r.response_ids)]
        known = [torch.zeros(0)] + [r.log_probs for _, r in every if r.log_probs is not None]
        sizes = [
            (n, len(r.prompt_ids), len(r.response_ids), r.by_teacher, _count(r.log_probs))
            for n, r in every
        ]
        rows = _as_text([dict(r.row) for _, r in every]).encode()
        tensors = {
            "tokens": torch.tensor(tokens, dtype=torch.int32),
            "log_probs": torch.cat(known),
            "sizes": torch.tensor(sizes, dtype=torch.int32).reshape(-1, 5),
            "drifts": torch.tensor([r.drift for _, r in every], dtype=torch.float64),
            "rows": torch.frombuffer(bytearray(rows), dtype=torch.uint8),
        }
        with written_whole(checkpoint / FILE) as file:
            # Not safetensors' save_file, which sets mode 0600 whatever the umask says.
            file.write_bytes(save(tensors, {"groups": str(self._all)}))

    def resume(self, checkpoint: Path) -> None:
        """Go on with the buffer of a checkpoint; with an empty one where the run had none.

        Raises:
            ValueError: it cannot be read.
        """
        self.forget()
        path = checkpoint / FILE
        if not path.exists():
            logger.warning(
                f"{str(checkpoint)!r} holds no {FILE}: the buffer of replay begins empty."
            )
            return
        try:
            with safe_open(path, "pt") as file:
                groups = int(file.metadata()["groups"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 # no mapping
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{str(path)!r} cannot be read ({error}): start anew.") from error
        for group, rollout in _read(tensors):
            # Other processes, or another batch, may deal them out otherwise.
            own = group * self._all // groups - self._first
            if 0 <= own < len(self._groups):
                self._groups[own].append(rollout)

    @property
    def _capacity(self) -> int:
        return self._args.replay // self._all

    def _kept(self, group: Sequence[Rollout]) -> list[Rollout]:
        most = self._args.max_drift_kl
        kept = [rollout for rollout in group if most is None or rollout.drift <= most]
        self.dropped += len(group) - len(kept)
        return kept


def learn_drifts(rollouts: Sequence[Rollout], log_probs: Sequence[Tensor]) -> None:
    """Measure how far the student has moved since it wrote rollouts.

    Args:
        rollouts: those of a micro-batch.
        log_probs: for each, of the tokens that the student drew, as it is now; kept as those of the
            writing where these are not known, as in the first update after it.
    """
    for rollout, now in zip(rollouts, log_probs, strict=True):
        if rollout.log_probs is None:
            rollout.log_probs = now
        elif len(now):
            total, count = drift(rollout.log_probs, now)
            rollout.drift = float(total / count)


def _read(tensors: Mapping[str, Tensor]) -> list[tuple[int, Rollout]]:
    rows = json.loads(bytes(tensors["rows"].tolist()))
    tokens, log_probs = tensors["tokens"].tolist(), tensors["log_probs"]
    found, at, known_at = [], 0, 0
    for size, row, drifted in zip(tensors["sizes"].tolist(), rows, tensors["drifts"], strict=True):
        group, prompt, response, by_teacher, known = size
        end = at + prompt + response
        own = None if known < 0 else log_probs[known_at : known_at + known].clone()
        found.append(
            (
                group,
                Rollout(
                    tokens[at : at + prompt],
                    tokens[at + prompt : end],
                    by_teacher,
                    own,
                    row,
                    float(drifted),
                ),
            )
        )
        at, known_at = end, known_at + max(known, 0)
    return found


def _count(log_probs: Tensor | None) -> int:
    return -1 if log_probs is None else len(log_probs)


def _as_text(rows: list[dict[str, Any]]) -> str:
    try:
        return json.dumps(rows)
    except TypeError as error:
        raise ValueError(
            f"replay keeps the rows of its prompts in checkpoints, as JSON, and {error}: leave "
            "that column out of the dataset."
        ) from error
