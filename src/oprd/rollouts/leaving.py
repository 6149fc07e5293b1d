"""Writing on without the responses that have ended.

Transformers' `generate` computes every row of a batch until its last one has ended. Here it stops
once a part of the rows has, and goes on with the others and their part of the cache.

Letters: B sequences, T all tokens.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.generation.utils import GenerateDecoderOnlyOutput

from oprd.rollouts.recorded import Recorder

# What `generate` takes and returns it as; Transformers renamed it in 5.24.
CACHE = "cache" if "cache" in GenerateDecoderOnlyOutput.__dataclass_fields__ else "past_key_values"
# To go on costs a copy of the cache: not for each row that ends.
ENOUGH = 0.25


class _Enough(StoppingCriteria):
    """Stops all rows once so many have ended."""

    def __init__(self, ends: Tensor) -> None:
        self._ends = ends
        self._ended: Tensor | None = None

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        """See the class."""
        ended = torch.isin(input_ids[:, -1], self._ends)
        self._ended = ended if self._ended is None else self._ended | ended
        return (self._ended.float().mean() >= ENOUGH).expand(len(input_ids))


@contextmanager
def leaving_ended(model: Any, ends: Sequence[int], recorder: Recorder) -> Iterator[None]:
    """Let a model's `generate` leave responses that have ended; the same tokens are as likely.

    Args:
        model: not wrapped.
        ends: tokens that end a response.
        recorder: told which rows go on.
    """
    generate, own = model.generate, "generate" in vars(model)
    model.generate = partial(_write_on, generate, ends, recorder)
    try:
        yield
    finally:
        if own:
            model.generate = generate
        else:
            del model.generate


def _write_on(
    generate: Callable[..., Any],
    ends: Sequence[int],
    recorder: Recorder,
    *,
    input_ids: Tensor,
    attention_mask: Tensor,
    generation_config: Any,
    **others: Any,
) -> Tensor:
    """Prompts and responses [B, T], as `generate` returns them.

    What follows an end token is of no account.
    """
    start, limit = input_ids.shape[1], generation_config.max_new_tokens
    if others or limit is None:
        options = {"input_ids": input_ids, "attention_mask": attention_mask, **others}
        return generate(**options, generation_config=generation_config)
    stops = torch.tensor(list(ends), device=input_ids.device)
    pad = generation_config.pad_token_id
    found = torch.full((len(input_ids), start + limit), pad, device=input_ids.device)
    found[:, :start] = input_ids
    rows = torch.arange(len(input_ids), device=input_ids.device)
    ids, mask, cache, end = input_ids, attention_mask, None, start
    leaves = True
    while len(rows) and end < start + limit:
        config = copy.deepcopy(generation_config)
        config.max_new_tokens = start + limit - end
        written = generate(
            input_ids=ids,
            attention_mask=mask,
            **{CACHE: cache},
            generation_config=config,
            return_dict_in_generate=True,
            stopping_criteria=StoppingCriteriaList([_Enough(stops)] if leaves else []),
        )
        ids, new = written.sequences, written.sequences[:, ids.shape[1] :]
        found[rows, end : end + new.shape[1]] = new
        end += new.shape[1]
        mask, cache = torch.cat([mask, torch.ones_like(new)], dim=1), getattr(written, CACHE)
        on = (~torch.isin(new, stops).any(dim=1)).nonzero()[:, 0]
        if not _divides(cache):
            # Rows cannot be taken out of it: those that go on are read anew, and once.
            leaves, cache = False, None
        elif len(on):
            cache.batch_select_indices(on)
        recorder.go_on(new[:, -1:], on)
        rows, ids, mask = rows[on], ids[on], mask[on]
    return found[:, :end]


def _divides(cache: Any) -> bool:
    """Whether a cache is one of keys and values by row, all of them."""
    return type(cache) is DynamicCache and all(type(own) is DynamicLayer for own in cache.layers)
