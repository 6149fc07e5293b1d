"""How responses are drawn, and the random numbers of each (problem, sample)."""

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any

# Settings that, at these values, alter nothing.
_NEUTRAL = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn.

    Attributes:
        samples: responses per problem.
        temperature: 0 is greedy, for which one sample says everything.
        top_p: the nucleus' probability mass.
        max_new_tokens: the length limit of a response.
        seed: the base seed.
        top_k: only so many of the likeliest tokens; 0 for all.
        min_p: only tokens with this share of the likeliest one's probability.
        repetition_penalty: divides the logits of tokens that the prompt or the response holds, or
            multiplies negative ones; 1 leaves them.

    Raises:
        ValueError: a value is out of range.
    """

    samples: int = 16
    temperature: float = 0.7
    top_p: float = 0.95
    max_new_tokens: int = 1024
    seed: int = 0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

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
        if self.top_k < 0:
            raise ValueError(f"top_k must be at least 1, or 0 for all tokens, got {self.top_k}.")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be in [0, 1], got {self.min_p}.")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(
                f"repetition_penalty must be finite and above 0, got {self.repetition_penalty}."
            )

    def facts(self) -> dict[str, Any]:
        """The settings as files hold them; without what alters nothing."""
        settings = asdict(self)
        return {name: v for name, v in settings.items() if v != _NEUTRAL.get(name, math.nan)}

    def pair_seed(self, task: str, problem: str, sample: int) -> int:
        """The seed of one (problem, sample), in 0..2³¹−1.

        It is a hash of the base seed, the task, the problem and the sample's number alone: no
        other pair, and neither their order nor their number, has a part in it.
        """
        key = f"{self.seed}\n{task}\n{problem}\n{sample}"
        # vLLM and NumPy take 32 bits, some backends signed.
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") >> 1
