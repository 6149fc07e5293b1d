"""Responses per second with Transformers: plain batches, sorted batches, continuous batching.

    python benchmarks/generation.py --model .cache/smollm2-135m-instruct

Prompts of very different lengths, greedy, so that all three draw the same tokens. Processor time is
printed beside wall time, for machines that do something else as well.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    ContinuousBatchingConfig,
    GenerationConfig,
)

from oprd.evaluation.tasks import arithmetic
from oprd.models.generate import Request, TransformersEngine, end_token_ids, render_prompt
from oprd.models.sampling import Sampling

# Tokens that one block of the continuous cache holds.
PAGE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--max_new_tokens", type=int, default=64)
    parser.add_argument("--longest", type=int, default=40, help="worked examples in a prompt")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    model = AutoModelForCausalLM.from_pretrained(options.model).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    requests = ragged_requests(tokenizer, options.requests, options.longest)
    lengths = sorted(len(request.prompt_ids) for request in requests)
    sampling = Sampling(samples=1, temperature=0.0, max_new_tokens=options.max_new_tokens)

    def padded(sort_by_length: bool) -> list[int]:
        engine = TransformersEngine(model, tokenizer, options.batch_size, sort_by_length)
        return [len(r.ids) for batch in engine.generate(requests, sampling) for r in batch]

    def continuous() -> list[int]:
        ends = end_token_ids(model, tokenizer)
        config = GenerationConfig(
            max_new_tokens=options.max_new_tokens,
            do_sample=False,
            eos_token_id=ends[0],
            pad_token_id=ends[0],
        )
        batching = ContinuousBatchingConfig(
            # Left to itself it takes most of the machine's memory; this holds every request.
            num_blocks=len(requests) * (lengths[-1] + options.max_new_tokens + PAGE) // PAGE,
            max_batch_tokens=options.batch_size * PAGE // 4,
            max_requests_per_batch=options.batch_size,
        )
        prompts = [list(request.prompt_ids) for request in requests]
        outputs = model.generate_batch(
            prompts, generation_config=config, continuous_batching_config=batching, warmup=False
        )
        return [len(output.generated_tokens) for output in outputs.values()]

    ways = {
        "plain padded": lambda: padded(False),
        "sorted by length": lambda: padded(True),
        "continuous": continuous,
    }
    spread = f"{lengths[0]} to {lengths[-1]} tokens"
    print(f"{options.requests} prompts of {spread}, {torch.get_num_threads()} threads")
    print("| batching | response tokens | wall seconds | tokens/s | processor seconds |")
    print("| --- | ---: | ---: | ---: | ---: |")
    # Interleaved, so that a busy minute of the machine does not fall on one of them.
    timings: dict[str, list[tuple[float, float, int]]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, draw in ways.items():
            timings[name].append(measure(draw))
            print(f"{name}: {timings[name][-1][0]:.1f} s", file=sys.stderr, flush=True)
    for name, found in timings.items():
        wall, cpu, tokens = min(found)
        print(f"| {name} | {tokens} | {wall:.1f} | {tokens / wall:.0f} | {cpu:.1f} |")


def measure(draw: Callable[[], list[int]]) -> tuple[float, float, int]:
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = sum(draw())
    return time.perf_counter() - wall, time.process_time() - cpu, tokens


def ragged_requests(tokenizer, count: int, longest: int) -> list[Request]:
    rng = random.Random(0)
    problems = arithmetic.problems("train", count, seed=0)
    requests = []
    for number, problem in enumerate(problems):
        shots = arithmetic.problems("train", rng.randint(0, longest), seed=number + 1)
        text = "".join(f"{shot.prompt}{shot.solution}\n\n" for shot in shots) + problem.prompt
        # As a chat, which the model ends by itself: responses are ragged too.
        _, ids = render_prompt(tokenizer, [{"role": "user", "content": text}])
        requests.append(Request(str(number), 0, tuple(ids), number))
    return requests


if __name__ == "__main__":
    main()
