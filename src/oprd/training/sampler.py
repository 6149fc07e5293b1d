"""The order of prompts: a function of the seed and the epoch alone."""

from collections import Counter
from collections.abc import Callable, Generator, Hashable, Sequence, Sized

import torch
from trl.trainer.utils import RepeatSampler

# Between the seeds of two epochs, so that no epoch of one seed is an epoch of a neighbouring seed.
# torch's CPU generator looks at 32 bits of a seed.
EPOCH_STRIDE = 1_000_003


class EpochRepeatSampler(RepeatSampler):
    """TRL's sampler, which a resumed run can continue in any epoch.

    TRL's draws each epoch's order from a generator that remembers the epochs before; a resumed run
    starts it anew and would repeat the first epoch's order.

    Args:
        data_source: what is sampled from.
        rollouts_per_prompt: how often each index stands in its batch.
        batch_size: different prompts in a generation batch.
        repeat_count: how often each generation batch is given out.
        shuffle: whether the order is random.
        seed: of the order.
        epoch: the current epoch, asked for when it begins.
        groups: by index, what the prompts of one generation batch have in common; None where they
            are mixed. What does not fill a batch of its group is left out in that epoch.
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
    ) -> None:
        super().__init__(data_source, rollouts_per_prompt, batch_size, repeat_count, shuffle, seed)
        self._epoch, self._groups = epoch, groups

    def __iter__(self) -> Generator[int, None, None]:
        """The indices of one epoch."""
        if self.shuffle:
            assert self.seed is not None
            self.generator.manual_seed(self.seed + EPOCH_STRIDE * self._epoch())
        if self._groups is None:
            yield from super().__iter__()
            return
        for batch in self._pure_batches(self._groups):
            for _ in range(self.repeat_count):
                for index in batch:
                    yield from [index] * self.mini_repeat_count

    def __len__(self) -> int:
        """Indices of one epoch."""
        if self._groups is None:
            return super().__len__()
        batches = sum(count // self.batch_size for count in Counter(self._groups).values())
        return batches * self.batch_size * self.mini_repeat_count * self.repeat_count

    def _pure_batches(self, groups: Sequence[Hashable]) -> list[list[int]]:
        """Whole batches of one group each: in random order, or as their last prompts stand."""
        order = list(range(self.num_samples))
        if self.shuffle:
            order = torch.randperm(self.num_samples, generator=self.generator).tolist()
        begun: dict[Hashable, list[int]] = {}
        found = []
        for index in order:
            batch = begun.setdefault(groups[index], [])
            batch.append(index)
            if len(batch) == self.batch_size:
                found.append(begun.pop(groups[index]))
        return found
