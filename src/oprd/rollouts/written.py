"""A rollout as it was written, and what is known of it besides."""

from dataclasses import dataclass


@dataclass
class Rollout:
    """What was written for a prompt.

    Attributes:
        prompt_ids: what the student was asked.
        response_ids: what came back.
        by_teacher: how many of these, the first ones, the teacher wrote.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    by_teacher: int = 0
