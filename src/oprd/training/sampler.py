"""The order of prompts: a function of the seed and the epoch alone."""

from collections.abc import Callable, Generator, Sized

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
    ) -> None:
        super().__init__(data_source, rollouts_per_prompt, batch_size, repeat_count, shuffle, seed)
        self._epoch = epoch

    def __iter__(self) -> Generator[int, None, None]:
        """The indices of one epoch."""
        if self.shuffle:
            assert self.seed is not None
            self.generator.manual_seed(self.seed + EPOCH_STRIDE * self._epoch())
        yield from super().__iter__()
