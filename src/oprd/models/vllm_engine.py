"""Responses from vLLM, which seeds every request by itself."""

import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from oprd.extras import require
from oprd.models.generate import Request, Response, end_token_ids
from oprd.models.sampling import Sampling
from oprd.supported import check_vllm

# Requests handed over at once: enough to keep the engine full, few enough to write often.
CHUNK = 512


class VllmEngine:
    """vLLM in this process, with the seed of its (problem, sample) for every request.

    Args:
        source: a folder or a hub id.
        revision: of a hub id.
        dtype: `"auto"` is the checkpoint's own.

    Raises:
        ImportError: vLLM is not installed, or not of the range that is known.
    """

    name = "vllm"

    def __init__(self, source: str, revision: str | None = None, dtype: str = "auto") -> None:
        self._vllm: Any = require("vllm", "vllm", "engine vllm")
        check_vllm()
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        if dtype == "auto" and (own := config.get_text_config().dtype or config.dtype) is not None:
            # vLLM's own choice for float32 is half of it.
            dtype = str(own).removeprefix("torch.")
        options = {"model": source, "revision": revision, "dtype": dtype}
        if not torch.accelerator.is_available():
            # On a CPU a seeded request whose prompt is read in parts ends the engine.
            options["enable_chunked_prefill"] = False
        self._llm: Any = self._vllm.LLM(**options)
        self.tokenizer: PreTrainedTokenizerBase = self._llm.get_tokenizer()
        made = self._llm.llm_engine.model_config
        # vLLM's own limit: it looks into nested configurations, and may have stretched or cut it.
        self.context_length: int | None = made.max_model_len
        self.dtype = str(made.dtype).removeprefix("torch.")
        self._ends = end_token_ids(_generation_settings(source, revision, config), self.tokenizer)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Response]]:
        """Draw every request once.

        Raises:
            ValueError: vLLM returned another number of responses, one of another prompt or a longer
                one, or gave one up.
        """
        for start in range(0, len(requests), CHUNK):
            yield self._chunk(requests[start : start + CHUNK], sampling)

    def _chunk(self, chunk: Sequence[Request], sampling: Sampling) -> list[Response]:
        started = time.perf_counter()
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(request.prompt_ids)} for request in chunk],
            [
                self._vllm.SamplingParams(
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    top_k=sampling.top_k or -1,
                    min_p=sampling.min_p,
                    repetition_penalty=sampling.repetition_penalty,
                    max_tokens=sampling.max_new_tokens,
                    stop_token_ids=self._ends,
                    seed=request.seed,
                    # Its text leaves out a token that ended a response; ours is as Transformers'.
                    detokenize=False,
                )
                for request in chunk
            ],
            use_tqdm=False,
        )
        seconds = (time.perf_counter() - started) / len(chunk)
        if len(outputs) != len(chunk):
            raise ValueError(
                f"vllm was asked for {len(chunk)} samples and returned {len(outputs)}."
            )
        most = sampling.max_new_tokens
        return [
            self._response(request, output, most, seconds)
            for request, output in zip(chunk, outputs, strict=True)
        ]

    def _response(self, request: Request, output: Any, most: int, seconds: float) -> Response:
        if list(output.prompt_token_ids) != list(request.prompt_ids):
            raise ValueError(f"vllm returned responses in another order at {request.problem!r}.")
        completion = output.outputs[0]
        which = f"problem {request.problem!r}, sample {request.sample}"
        if completion.finish_reason not in ("stop", "length"):
            raise ValueError(f"vllm gave up {which}: {completion.finish_reason}.")
        ids = list(completion.token_ids)
        if len(ids) > most:
            raise ValueError(
                f"vllm was asked for at most {most} tokens and returned {len(ids)} for {which}."
            )
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        return Response(request, ids, text, completion.finish_reason, seconds)


def _generation_settings(source: str, revision: str | None, config: Any) -> Any:
    """A model that has nothing but its generation settings, as Transformers would load them."""
    options: dict[str, Any] = {"revision": revision}
    try:
        found = GenerationConfig.from_pretrained(source, **options)
    except OSError:
        found = GenerationConfig.from_model_config(config)
    return SimpleNamespace(generation_config=found)
