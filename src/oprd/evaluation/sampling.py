"""How responses are drawn, and the random numbers of each (problem, sample)."""

import hashlib
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Sampling:
    """The settings of an evaluation's responses.

    Attributes:
        samples: responses per problem.
        temperature: 0 is greedy, for which one sample says everything.
        top_p: the nucleus' probability mass.
        max_new_tokens: the length limit of a response.
        seed: the base seed.

    Raises:
        ValueError: a value is out of range.
    """

    samples: int = 16
    temperature: float = 0.7
    top_p: float = 0.95
    max_new_tokens: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}.")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be finite and at least 0, got {self.temperature}.")
        if self.temperature == 0 and self.samples > 1:
            raise ValueError(
                f"temperature 0 gives {self.samples} identical responses: ask for samples=1."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}.")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}.")

    def pair_seed(self, task: str, problem: str, sample: int) -> int:
        """The seed of one (problem, sample), in 0..2³¹−1.

        It is a hash of the base seed, the task, the problem and the sample's number alone: no
        other pair, and neither their order nor their number, has a part in it.
        """
        key = f"{self.seed}\n{task}\n{problem}\n{sample}"
        # vLLM and NumPy take 32 bits, some backends signed.
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") >> 1
