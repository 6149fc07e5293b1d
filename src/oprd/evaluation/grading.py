"""Whether a response answers its problem: a verdict, its status and the answer it was read from."""

from dataclasses import dataclass
from typing import Literal

Status = Literal[
    "correct", "wrong", "no_box", "unterminated", "parse_error", "timeout", "empty", "truncated"
]


@dataclass(frozen=True)
class Grade:
    """The verdict on one response.

    Attributes:
        correct: whether the answer equals the gold answer.
        status: why. `"truncated"` is set by the evaluator, which knows the finish reason.
        extracted: the answer as it stands in the response, or None where there is none.
    """

    correct: bool
    status: Status
    extracted: str | None = None

    @classmethod
    def of(cls, correct: bool, extracted: str | None) -> "Grade":
        """The grade of an answer that was found and compared."""
        return cls(correct, "correct" if correct else "wrong", extracted)
