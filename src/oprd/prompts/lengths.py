"""Prompts that leave room for a response in both models' contexts."""

from collections.abc import Callable, Mapping

from accelerate.logging import get_logger
from datasets import Dataset
from transformers import PreTrainedModel

from oprd.models.reading import context_length

logger = get_logger(__name__)

BATCH = 1000


def context_limits(student: PreTrainedModel, teacher: PreTrainedModel) -> dict[str, int]:
    """The longest sequence that each model reads, by its part; one without a limit is left out."""
    limits = {
        "student": context_length(student.config),
        "teacher": context_length(teacher.config),
    }
    return {name: limit for name, limit in limits.items() if limit is not None}


def check_prompt_lengths(
    dataset: Dataset,
    tokenize: Callable[[list], list[list[int]]],
    contexts: Mapping[str, int],
    max_completion_length: int | None,
    *,
    drop: bool,
    name: str = "training",
) -> Dataset:
    """Check every prompt of a dataset before training.

    Args:
        dataset: rows with a `prompt`.
        tokenize: token ids of a list of prompts.
        contexts: the longest sequence that each model reads, by the model's name.
        max_completion_length: the response's limit in tokens.
        drop: leave out prompts that do not fit, and say how many, instead of refusing them.
        name: what the dataset is for, in messages.

    Raises:
        ValueError: a prompt is empty, does not fit (named with its row and lengths), or none is
            left.
    """
    keep: list[int] = []
    prompts = dataset.select_columns("prompt")
    for start in range(0, len(dataset), BATCH):
        for row, ids in enumerate(tokenize(prompts[start : start + BATCH]["prompt"]), start):
            problem = prompt_problem(ids, contexts, max_completion_length)
            if problem is None:
                keep.append(row)
            elif not drop:
                raise ValueError(f"{name} prompt {row} {problem}")
    if len(keep) == len(dataset):
        return dataset
    if not keep:
        raise ValueError(f"none of the {len(dataset)} {name} prompts fits the context.")
    dropped = len(dataset) - len(keep)
    logger.warning(f"Dropped {dropped} of {len(dataset)} {name} prompts: too long, or empty.")
    return dataset.select(keep)


def prompt_problem(
    ids: list[int], contexts: Mapping[str, int], max_completion_length: int | None
) -> str | None:
    """What is wrong with a prompt's length, as the rest of a sentence; None where nothing is."""
    if not ids:
        return "has no tokens: mend it, or set long_prompts='drop' to leave such prompts out."
    # Without a limit a response may still be one token.
    needed = len(ids) + (max_completion_length or 1)
    for model, limit in contexts.items():
        if needed > limit:
            return (
                f"has {len(ids)} tokens, with max_completion_length={max_completion_length} that "
                f"is {needed}, and the {model} reads {limit} at most: shorten the response, or "
                "set long_prompts='drop' to leave such prompts out."
            )
    return None
