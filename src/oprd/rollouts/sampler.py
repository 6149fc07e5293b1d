"""The order of prompts: a function of the seed and the epoch alone."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence, Sized

import torch
from torch.utils.data import Sampler

# Between the seeds of two epochs, so that no epoch of one seed is an epoch of a neighbouring seed.
# torch's CPU generator looks at 32 bits of a seed.
EPOCH_STRIDE = 1_000_003


class PromptSampler(Sampler[int]):
    """Gives out indices of prompts so that a resumed run can go on in any epoch.

    TRL's draws each epoch's order from a generator that remembers the epochs before; a resumed run
    starts it anew and would repeat the first epoch's order.

    Args:
        data_source: what is sampled from.
        rollouts_per_prompt: how often each index stands in its batch.
        batch_size: different prompts of a step.
        repeat_count: how often what is written at once is given out.
        shuffle: whether the order is random.
        seed: of the order.
        epoch: the current epoch, asked for when it begins.
        groups: by index, what the prompts of one step have in common; None where they are mixed.
            What does not fill a step of its group is left out in that epoch.
        ahead: steps whose rollouts are written at once. What does not fill them is left out in that
            epoch.
        processes: among which the rollouts of a step are dealt out in equal parts.
    """

    def __init__(
        self,
        data_source: Sized,
        rollouts_per_prompt: int,
        batch_size: int,
        repeat_count: int,
        shuffle: bool,
        seed: int,
        epoch: Callable[[], int],
        groups: Sequence[Hashable] | None = None,
        *,
        ahead: int = 1,
        processes: int = 1,
    ) -> None:
        self._prompts, self._batch_size = len(data_source), batch_size
        self._rollouts_per_prompt, self._repeat_count = rollouts_per_prompt, repeat_count
        self._shuffle, self._seed, self._epoch = shuffle, seed, epoch
        self._groups, self._ahead, self._processes = groups, ahead, processes

    def __iter__(self) -> Iterator[int]:
        """The indices of one epoch."""
        steps = [self._rollouts(batch) for batch in self._batches()]
        for start in range(0, len(steps) - self._ahead + 1, self._ahead):
            at_once = self._dealt(steps[start : start + self._ahead])
            for _ in range(self._repeat_count):
                yield from at_once

    def __len__(self) -> int:
        """Indices of one epoch."""
        sizes = [self._prompts] if self._groups is None else Counter(self._groups).values()
        steps = sum(size // self._batch_size for size in sizes)
        whole = steps // self._ahead * self._ahead
        return whole * self._batch_size * self._rollouts_per_prompt * self._repeat_count

    def _batches(self) -> list[list[int]]:
        """Of whole steps: in random order, or as their last prompts stand."""
        order = list(range(self._prompts))
        if self._shuffle:
            generator = torch.Generator().manual_seed(self._seed + EPOCH_STRIDE * self._epoch())
            order = torch.randperm(self._prompts, generator=generator).tolist()
        begun: dict[Hashable, list[int]] = {}
        found = []
        for index in order:
            group = None if self._groups is None else self._groups[index]
            batch = begun.setdefault(group, [])
            batch.append(index)
            if len(batch) == self._batch_size:
                found.append(begun.pop(group))
        return found

    def _rollouts(self, batch: list[int]) -> list[int]:
        return [index for index in batch for _ in range(self._rollouts_per_prompt)]

    def _dealt(self, steps: list[list[int]]) -> list[int]:
        """Every step's part for one process, then for the next: a loader deals out whole runs."""
        part = len(steps[0]) // self._processes
        return [
            index
            for process in range(self._processes)
            for step in steps
            for index in step[process * part : (process + 1) * part]
        ]
