"""Prompts that leave room for a response in both models' contexts."""

from collections.abc import Callable, Mapping

from accelerate.logging import get_logger
from datasets import Dataset

logger = get_logger(__name__)

BATCH = 1000


def check_prompt_lengths(
    dataset: Dataset,
    tokenize: Callable[[list], list[list[int]]],
    contexts: Mapping[str, int],
    max_completion_length: int | None,
    *,
    drop: bool,
) -> Dataset:
    """Check every prompt of a dataset before training.

    Args:
        dataset: rows with a `prompt`.
        tokenize: token ids of a list of prompts.
        contexts: the longest sequence that each model reads, by the model's name.
        max_completion_length: the response's limit in tokens.
        drop: leave out prompts that do not fit, and say how many, instead of refusing them.

    Raises:
        ValueError: a prompt is empty, does not fit (named with its row and lengths), or none is
            left.
    """
    keep: list[int] = []
    for start in range(0, len(dataset), BATCH):
        prompts = dataset[start : start + BATCH]["prompt"]
        for row, ids in enumerate(tokenize(prompts), start):
            problem = prompt_problem(ids, contexts, max_completion_length)
            if problem is None:
                keep.append(row)
            elif not drop:
                raise ValueError(f"prompt {row} {problem}")
    if len(keep) == len(dataset):
        return dataset
    if not keep:
        raise ValueError(f"none of the {len(dataset)} prompts fits the context.")
    logger.warning(f"Dropped {len(dataset) - len(keep)} of {len(dataset)} prompts: too long.")
    return dataset.select(keep)


def prompt_problem(
    ids: list[int], contexts: Mapping[str, int], max_completion_length: int | None
) -> str | None:
    """What is wrong with a prompt's length, as the rest of a sentence; None where nothing is."""
    if not ids:
        return "has no tokens: a response needs a token to follow."
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
