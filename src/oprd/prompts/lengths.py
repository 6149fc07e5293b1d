"""Prompts that leave room for a response in both models' contexts."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel

from oprd.log import get_logger
from oprd.models.prompt import refusal
from oprd.models.reading import context_length

logger = get_logger(__name__)

BATCH = 1000
WAY_OUT = "mend or shorten it, or set long_prompts='drop' to leave such prompts out."


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
        drop: leave out prompts that do not fit or cannot be read, and say how many, instead of
            refusing them.
        name: what the dataset is for, in messages.

    Raises:
        ValueError: a prompt is empty, is refused by the chat template, does not fit (named with its
            row and lengths), or none is left.
    """
    prompts = dataset.select_columns("prompt")

    def problems() -> Iterator[str | None]:
        for start in range(0, len(dataset), BATCH):
            for ids in _read(tokenize, prompts[start : start + BATCH]["prompt"]):
                # What stands in the place of tokens says why there are none.
                is_text = isinstance(ids, str)
                yield ids if is_text else prompt_problem(ids, contexts, max_completion_length)

    return keep_fitting(dataset, problems(), drop=drop, name=name)


def keep_fitting(
    dataset: Dataset, problems: Iterable[str | None], *, drop: bool, name: str
) -> Dataset:
    """A dataset without the rows that have a problem.

    Args:
        dataset: of prompts.
        problems: of each row, the rest of a sentence about its prompt; None where there is none.
        drop: see `check_prompt_lengths`.
        name: likewise.

    Raises:
        ValueError: a row has a problem and is not to be dropped, or none is left.
    """
    keep: list[int] = []
    dropped: list[str] = []
    for row, problem in enumerate(problems):
        if problem is None:
            keep.append(row)
            continue
        dropped.append(f"{name} prompt {row} {problem}")
        if not drop:
            raise ValueError(f"{dropped[0]}: {WAY_OUT}")
    if not dropped:
        return dataset
    if not keep:
        raise ValueError(f"no {name} prompt is left of {len(dataset)}: {dropped[0]}.")
    logger.warning(f"Dropped {len(dropped)} of {len(dataset)} {name} prompts: {dropped[0]}.")
    return dataset.select(keep)


def prompt_problem(
    ids: list[int], contexts: Mapping[str, int], max_completion_length: int | None
) -> str | None:
    """What is wrong with a prompt's length, as the rest of a sentence; None where nothing is."""
    if not ids:
        return "has no tokens"
    # Without a limit a response may still be one token.
    needed = len(ids) + (max_completion_length or 1)
    for model, limit in contexts.items():
        if needed > limit:
            return (
                f"has {len(ids)} tokens, with max_completion_length={max_completion_length} that "
                f"is {needed}, and the {model} reads {limit} at most"
            )
    return None


def _read(tokenize: Callable[[list], list[list[int]]], prompts: list) -> list[list[int] | str]:
    """Token ids of every prompt, or what is wrong with it."""

    def read(prompt: Any) -> list[int] | str:
        try:
            return tokenize([prompt])[0]
        except Exception as error:  # see `render`
            return refusal(prompt, error)

    try:
        return [*tokenize(prompts)]
    except Exception:
        return [read(prompt) for prompt in prompts]


def check_prompt_count(
    dataset: Any, rollouts_per_prompt: int, rollouts_per_step: int, ahead: int = 1
) -> None:
    """Refuse, with a ValueError, a dataset too small for what is written at once.

    A stream has no length.
    """
    if not isinstance(dataset, Dataset):
        return
    available, needed = len(dataset) * rollouts_per_prompt, rollouts_per_step * ahead
    if available < needed:
        several = f"{ahead} steps (rollouts_ahead) need" if ahead > 1 else "a step needs"
        raise ValueError(
            f"{len(dataset)} prompts give {available} rollouts, and {several} {needed}: lower "
            f"{'rollouts_ahead, ' if ahead > 1 else ''}per_device_train_batch_size or "
            "gradient_accumulation_steps, or add prompts."
        )
