"""How long vLLM takes to write rollouts, beside Transformers' `generate` with the same weights.

    .venv-vllm/bin/python benchmarks/rollouts.py --model .cache/smollm2-135m-instruct

Both draw the same number of tokens after the same prompts, in turns; a ratio is to its own round's
`generate`. Beside the time by the clock stand CPU seconds of this process and vLLM's, which mean
something on a machine that others use too, with one thread (`OMP_NUM_THREADS=1`). On a CPU vLLM is
not compiled (`enforce_eager`). `--json FILE` keeps every figure.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

# On a CPU: as much memory as this takes, and threads where this process may run.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

import psutil
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from oprd.evaluation.tasks import arithmetic
from oprd.models.generate import left_pad
from oprd.models.prompt import render_prompt

UNITS = ("seconds", "CPU seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--rollouts", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--tokens", type=int, default=56)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    import vllm

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, options.dtype)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    engine = vllm.LLM(
        model=options.model,
        dtype=options.dtype,
        enforce_eager=device == "cpu",
        enable_prefix_caching=False,
        max_model_len=1024,
    )
    problems = arithmetic.problems("train", max(options.rollouts), seed=0)
    chats = ([{"role": "user", "content": problem.prompt}] for problem in problems)
    prompts = [render_prompt(tokenizer, chat)[1] for chat in chats]

    def with_vllm(count: int) -> int:
        drawn = vllm.SamplingParams(
            temperature=1.0, max_tokens=options.tokens, ignore_eos=True, detokenize=False
        )
        asked = [{"prompt_token_ids": list(ids)} for ids in prompts[:count]]
        return sum(
            len(o.outputs[0].token_ids) for o in engine.generate(asked, drawn, use_tqdm=False)
        )

    @torch.no_grad()
    def with_transformers(count: int) -> int:
        inputs = left_pad(prompts[:count], 0)
        length = options.tokens
        config = GenerationConfig(
            max_new_tokens=length, min_new_tokens=length, do_sample=True, pad_token_id=0, top_k=0
        )
        placed = {name: tensor.to(device) for name, tensor in inputs.items()}
        return model.generate(**placed, generation_config=config)[:, -length:].numel()

    found = [measured(n, options, with_vllm, with_transformers) for n in options.rollouts]
    print(f"{options.model}, {options.dtype}, {device}, {torch.get_num_threads()} threads")
    print("| rollouts × tokens | counted in | generate | vLLM | vLLM / generate | least to most |")
    print("|---|---|---|---|---|---|")
    for one in found:
        for unit in UNITS:
            ratios = one[unit]["ratios"]
            print(
                f"| {one['rollouts']} × {options.tokens} | {unit} | "
                f"{statistics.median(one[unit]['generate']):.2f} | "
                f"{statistics.median(one[unit]['vllm']):.2f} | {statistics.median(ratios):.2f} | "
                f"{min(ratios):.2f} to {max(ratios):.2f} |"
            )
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def measured(
    count: int,
    options: argparse.Namespace,
    with_vllm: Callable[[int], int],
    with_transformers: Callable[[int], int],
) -> dict:
    """Seconds of both, in turns, after one call of each that is not counted."""
    ways = {"generate": with_transformers, "vllm": with_vllm}
    found: dict = {unit: {name: [] for name in ways} for unit in UNITS}
    for number in range(options.rounds + 1):
        for name, write in ways.items():
            started = time.perf_counter(), cpu_seconds()
            assert write(count) == count * options.tokens
            taken = time.perf_counter() - started[0], cpu_seconds() - started[1]
            print(f"{count}, round {number}, {name}: {taken[0]:.1f} s", file=sys.stderr)
            for unit, seconds in zip(UNITS, taken, strict=True):
                found[unit][name] += [seconds] if number else []
    for of in found.values():
        of["ratios"] = [v / g for v, g in zip(of["vllm"], of["generate"], strict=True)]
    return {"rollouts": count, "tokens": options.tokens, **found}


def cpu_seconds() -> float:
    """Of this process and those that it has started."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return sum(of.user + of.system for of in times)


if __name__ == "__main__":
    main()
