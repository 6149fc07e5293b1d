"""What a token of a rollout costs with Transformers, by how many are written at once, and how.

    python benchmarks/writing.py
    python benchmarks/writing.py --rounds 5 --tokens 48

The demo's student writes as many tokens in every case, in turn, on one thread. Processor time is
measured: another program on the machine then matters little.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "recipes" / "demo"))

from smollm2 import base_model_folder  # noqa: E402 # found on the path above

QUESTION = [{"role": "user", "content": "What is 34 + 57? Work it out step by step."}]
# How many at once, whether weights are bfloat16, the cache.
CASES: dict[str, tuple[int, bool, str | None]] = {
    "8": (8, False, None),
    "16": (16, False, None),
    "32": (32, False, None),
    "64": (64, False, None),
    "8, static cache": (8, False, "static"),
    "32, static cache": (32, False, "static"),
    "8, bfloat16": (8, True, None),
    "32, bfloat16": (32, True, None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32, help="of a response")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    folder = base_model_folder(ROOT / ".cache")
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    half = copy.deepcopy(whole).to(torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        QUESTION, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]

    def case(sequences: int, bfloat16: bool, cache: str | None) -> Callable[[int], None]:
        model = half if bfloat16 else whole
        return lambda tokens: write(model, prompt.repeat(sequences, 1), tokens, cache)

    cases = {name: case(*how) for name, how in CASES.items()}
    for run in cases.values():
        run(2)
    spent = {name: [] for name in cases}
    for _ in range(options.rounds):
        for name, run in cases.items():
            started = time.process_time()
            run(options.tokens)
            spent[name].append((time.process_time() - started) / (CASES[name][0] * options.tokens))
    print_table(spent)


def write(model: Any, prompts: torch.Tensor, tokens: int, cache: str | None) -> None:
    config = GenerationConfig(
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=True,
        top_k=0,
        pad_token_id=0,
        cache_implementation=cache,
    )
    with torch.no_grad():
        model.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=config)


def print_table(spent: dict[str, list[float]]) -> None:
    print(f"torch {torch.__version__}, one thread, processor time of a token")
    print("| at once | beside 8 | min to max |\n|---|---|---|")
    for name, times in spent.items():
        ratios = [own / eight for own, eight in zip(times, spent["8"], strict=True)]
        median, low, high = statistics.median(ratios), min(ratios), max(ratios)
        print(f"| {name} | {median:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
