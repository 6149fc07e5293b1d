"""What a token of a rollout costs with Transformers, by how many are written at once, and how.

    python benchmarks/writing.py
    python benchmarks/writing.py --rounds 5 --tokens 48
    python benchmarks/writing.py --ending          # responses that end by themselves

The demo's student writes as many tokens in every case, in turn, on one thread. Processor time is
measured: another program on the machine then matters little. With `--ending` it answers the demo's
problems, 32 at once, with a share of its teacher's adapter in its weights, as at the beginning, in
the middle and at the end of training: with and without the responses that have ended.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "recipes" / "demo"))

from demo import HERE, MAX_TOKENS  # noqa: E402 # found on the path above
from smollm2 import base_model_folder  # noqa: E402

from oprd.evaluation.tasks.load import generate_task  # noqa: E402
from oprd.rollouts.leaving import leaving_ended  # noqa: E402
from oprd.rollouts.recorded import Recorder  # noqa: E402

# Responses of the demo that are written together, four steps of eight.
AT_ONCE = 32

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
    parser.add_argument("--ending", action="store_true", help="let responses end by themselves")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.15, 1.0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    folder = base_model_folder(ROOT / ".cache")
    if options.ending:
        print_ending(folder, options.shares, options.rounds)
        return
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


def print_ending(folder: str, shares: list[float], rounds: int) -> None:
    print(f"torch {torch.__version__}, one thread, processor seconds of {AT_ONCE} responses")
    print("| share of the adapter | generate | ended ones left | ratio | tokens each |")
    print("|---|---|---|---|---|")
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    task = generate_task("additions", "train", AT_ONCE * rounds, seed=11)
    asked = [row["prompt"] for row in task.rows()]
    for share in shares:
        model = student(folder, share)
        spent, tokens = {False: 0.0, True: 0.0}, {False: 0, True: 0}
        for number in range(rounds):
            batch = asked[AT_ONCE * number : AT_ONCE * (number + 1)]
            given = tokenizer(batch, padding=True, return_tensors="pt")
            for leaves in (False, True):
                torch.manual_seed(number)
                started = time.process_time()
                ids = answer(model, given, tokenizer.eos_token_id, leaves)
                spent[leaves] += time.process_time() - started
                ends = ids[:, given["input_ids"].shape[1] :] == tokenizer.eos_token_id
                # Up to the first end token, with it.
                tokens[leaves] += int((ends.cumsum(dim=1) - ends.long() == 0).sum())
        whole, left = spent[False], spent[True]
        means = " and ".join(f"{count / AT_ONCE / rounds:.0f}" for count in tokens.values())
        print(
            f"| {share:g} | {whole:.1f} | {left:.1f} | {left / whole:.2f} | {means} |", flush=True
        )


def student(folder: str, share: float) -> Any:
    """The demo's student on its way to the teacher."""
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    adapted: Any = PeftModel.from_pretrained(base, str(HERE / "teacher"))
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            module.scale_layer(share)
    return adapted.merge_and_unload().eval()


def answer(model: Any, given: Any, end: int, leaves: bool) -> torch.Tensor:
    config = GenerationConfig(
        max_new_tokens=MAX_TOKENS,
        do_sample=True,
        top_k=0,
        top_p=1.0,
        eos_token_id=end,
        pad_token_id=end,
    )
    left = leaving_ended(model, (end,), Recorder(1.0)) if leaves else nullcontext()
    with torch.no_grad(), left:
        return model.generate(
            input_ids=given["input_ids"],
            attention_mask=given["attention_mask"],
            generation_config=config,
        )


def print_table(spent: dict[str, list[float]]) -> None:
    print(f"torch {torch.__version__}, one thread, processor time of a token")
    print("| at once | beside 8 | min to max |\n|---|---|---|")
    for name, times in spent.items():
        ratios = [own / eight for own, eight in zip(times, spent["8"], strict=True)]
        median, low, high = statistics.median(ratios), min(ratios), max(ratios)
        print(f"| {name} | {median:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
