"""What an output-space loss is: its parameters, checked, and a formula for rows of a chunk.

Letters: n rows of a chunk, V vocabulary, M ids looked at in each row.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from torch import Tensor

from oprd.core.output.chunk import Chunk


class Slope(NamedTuple):
    """A loss on the n rows of a chunk.

    Attributes:
        values: [n].
        slope: [n, V], or [n, M] with `ids`: what descends, ∂ value / ∂ student logits.
        ids: [n, M], the vocabulary entries that `slope` speaks of, if not all.
    """

    values: Tensor
    slope: Tensor
    ids: Tensor | None = None


class OutputLoss(ABC):
    """A loss on the two models' next-token distributions, a frozen dataclass of its parameters.

    Its construction refuses parameters that are out of bounds. Which rows it is summed over, at
    what temperature and with what weights is the caller's, see `oprd.core.output.chunked.sum_loss`.

    Attributes:
        own_rollouts: whether it holds only for rollouts of the student as it is, so that several
            updates on the same ones are refused.
        whole: whether it compares whole distributions, and looks at no token by its id; so it
            can be taken over classes of two vocabularies.
        spare: tensors [n, V] that it holds beside those of a chunk.
    """

    own_rollouts: ClassVar[bool] = False
    whole: ClassVar[bool] = True
    spare: ClassVar[int] = 0

    def check(self, vocab_size: int) -> None:
        """Refuse, with a ValueError, a vocabulary that is too small for it."""
        return

    @abstractmethod
    def __call__(self, chunk: Chunk) -> Slope:
        """Values and slopes of the rows of a chunk, whose buffers may be overwritten."""
