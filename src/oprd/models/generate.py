"""Responses from a model, each drawn with random numbers of its own.

Transformers draws a batch from one generator, so what a row gets depends on its neighbours. Here a
response's token t is read off the inverse distribution function at u_t, where u_1, u_2, … come from
a generator seeded for that (problem, sample). What is guaranteed: the same random numbers whatever
else is in the batch, and the same tokens for the same batch on the same machine and versions. What
is not: a batch of another shape rounds logits differently, and a u_t within that rounding of a
boundary picks the neighbouring token.

Letters: B sequences, K response tokens, V vocabulary.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, cast

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from oprd.models.reading import context_length
from oprd.models.sampling import Sampling

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Request:
    """One response to be drawn: a (problem, sample), its prompt and its seed."""

    problem: str
    sample: int
    prompt_ids: tuple[int, ...]
    seed: int


class Response(NamedTuple):
    """One response.

    Attributes:
        ids: the tokens as generated, the end token included where there is one.
        text: the same without special tokens.
        finish_reason: `"stop"` at an end token, `"length"` at the limit.
        seconds: this response's share of its batch's time.
    """

    request: Request
    ids: list[int]
    text: str
    finish_reason: FinishReason
    seconds: float


class Engine(Protocol):
    """What draws responses. Batches come as they are finished, in any order."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    context_length: int | None
    dtype: str

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Response]]:
        """Draw every request once."""
        ...


class TransformersEngine:
    """Transformers' `generate`, left-padded, batches sorted by prompt length.

    Args:
        model: a causal language model; its mode and its generation settings are left as they were.
        tokenizer: the model's own.
        batch_size: responses drawn at once.
        sort_by_length: whether prompts of similar length share a batch.
    """

    name = "transformers"

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = 32,
        sort_by_length: bool = True,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self.model = model
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.sort_by_length = sort_by_length
        self.context_length = context_length(model.config)
        self.dtype = str(model.dtype).removeprefix("torch.")
        self._ends = end_token_ids(model, tokenizer)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Response]]:
        """Draw every request once, longest prompts first: memory runs out early or not at all."""
        ordered = list(requests)
        if self.sort_by_length:
            ordered.sort(key=lambda request: -len(request.prompt_ids))
        for start in range(0, len(ordered), self.batch_size):
            yield self._batch(ordered[start : start + self.batch_size], sampling)

    # Not inference mode: a model in training may keep what a forward pass left in its buffers.
    @torch.no_grad()
    def _batch(self, batch: list[Request], sampling: Sampling) -> list[Response]:
        started = time.perf_counter()
        # Padding is told apart by the mask, never by its token, so that an end token serves too.
        pad = self._ends[0]
        inputs = left_pad([request.prompt_ids for request in batch], pad)
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        config = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=self._ends,
            pad_token_id=pad,
            # The sampler leaves one token: choosing is no longer up to `generate`.
            do_sample=False,
            num_beams=1,
            # What a model's own generation settings would otherwise fill in.
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            min_length=0,
        )
        write_with_cache(config)
        with evaluation_mode(self.model):
            output = self.model.generate(
                **inputs,
                generation_config=config,
                logits_processor=LogitsProcessorList([SeededSampler(batch, sampling)]),
            )
        rows = output[:, inputs["input_ids"].shape[1] :].tolist()
        seconds = (time.perf_counter() - started) / len(batch)
        return [self._response(*pair, seconds) for pair in zip(batch, rows, strict=True)]

    def _response(self, request: Request, row: list[int], seconds: float) -> Response:
        end = next((i for i, token in enumerate(row) if token in self._ends), None)
        ids = row if end is None else row[: end + 1]
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return Response(request, ids, str(text), "length" if end is None else "stop", seconds)


class SeededSampler(LogitsProcessor):
    """Leaves one token a row, drawn with that row's own random numbers.

    Args:
        batch: the requests, in the order of the rows.
        sampling: temperature (0 leaves the most probable token), what else shapes the distribution,
            and the length limit.
    """

    def __init__(self, batch: Sequence[Request], sampling: Sampling) -> None:
        self._temperature = sampling.temperature
        penalty = sampling.repetition_penalty
        self._penalty = RepetitionPenaltyLogitsProcessor(float(penalty)) if penalty != 1 else None
        # In the order of Transformers' own sampling.
        warpers: list[Any] = [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
        warpers += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
        warpers += [MinPLogitsWarper(sampling.min_p)] if sampling.min_p else []
        self._warpers = LogitsProcessorList(warpers)
        self._prompt_lengths = torch.tensor([[len(request.prompt_ids)] for request in batch])
        self._uniform = torch.stack(
            [
                torch.rand(
                    sampling.max_new_tokens, generator=torch.Generator().manual_seed(request.seed)
                )
                for request in batch
            ]
        ).double()
        self._step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Keep one entry of each row of the [B, V] scores, and put −∞ elsewhere."""
        if self._penalty is not None:
            scores = self._penalty(self._without_padding(input_ids), scores.float())  # pyright: ignore[reportArgumentType]
        if self._temperature == 0:
            token = scores.argmax(dim=1, keepdim=True)
        else:
            scaled = self._warpers(input_ids, scores.float() / self._temperature)  # pyright: ignore[reportArgumentType]
            # In float64 the sum over a large vocabulary keeps its small terms.
            cumulative = scaled.softmax(dim=1).double().cumsum(dim=1)
            uniform = self._uniform[:, self._step, None].to(scores.device)
            # From the right: a token without probability is never the first above u.
            token = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        self._step += 1
        return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)

    def _without_padding(self, input_ids: Tensor) -> Tensor:
        """The [B, T] tokens with the prompt's last in the place of padding: it is no repetition."""
        longest = input_ids.shape[1] - self._step
        starts = (longest - self._prompt_lengths).to(input_ids.device)
        own = torch.arange(input_ids.shape[1], device=input_ids.device) >= starts
        return input_ids.where(own, input_ids[:, longest - 1 : longest])


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Dropout off inside, the model's mode restored after."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def left_pad(prompts: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    """Prompts of any lengths as `input_ids` and `attention_mask`, both [B, longest]."""
    longest = max(map(len, prompts))
    return {
        "input_ids": torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts]),
        "attention_mask": torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts]),
    }


def write_with_cache(config: GenerationConfig) -> None:
    """Let generation keep keys and values unless it was told not to, whatever the model says.

    Training leaves `use_cache` off in what it saves, and such a model would read its whole response
    again for every token.
    """
    if config.use_cache is None:
        config.use_cache = True


def end_token_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a response: the tokenizer's, and those the model was set up with.

    Raises:
        ValueError: there is none, so that no response could ever end.
    """
    named = getattr(model, "generation_config", None)
    ends: Any = named.eos_token_id if named is not None else None
    several: list[Any] = ends if isinstance(ends, list) else [ends]
    found = {int(end) for end in [cast(Any, tokenizer.eos_token_id), *several] if end is not None}
    if not found:
        raise ValueError("the tokenizer has no end token: set `tokenizer.eos_token`.")
    return sorted(found)
