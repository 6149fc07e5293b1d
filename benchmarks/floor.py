"""What an OPRD update costs beside its floor: time and transient memory, as ratios.

    python benchmarks/floor.py

The floor is the teacher's base forward without gradient, plus the student's base forward and the
backward of a trivial loss. Variants take turns in one process, and each round's ratio is to that
round's floor, so that a machine whose speed drifts does not decide the result. Memory is measured
apart, each variant in a fresh process: the peak above resident parameters and gradients, the
baseline being taken after a warm-up step that left the gradients allocated.
"""

import argparse
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from oprd.core.capture import capture_states, num_layers
from oprd.core.layers import pair_layers
from oprd.core.representation import LayerComparison
from oprd.training.forward import base_forward, predicting_rows

VARIANTS = ("floor", "all positions", "last quarter")


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(json.dumps(transient_bytes(options)))
        return
    ratios = time_ratios(options)
    memory = {name: memory_in_fresh_process(name) for name in VARIANTS}
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{options.threads} threads, torch {torch.__version__}, float32; "
        f"B={options.batch}, {options.prompt} prompt + {options.response} response tokens; "
        f"{options.rounds} rounds"
    )
    print(f"{'':16}{'time / floor':>14}{'min – max':>18}{'memory / floor':>17}{'MiB':>8}")
    for name in VARIANTS:
        spread = f"{min(ratios[name]):.3f} – {max(ratios[name]):.3f}"
        print(
            f"{name:16}{statistics.median(ratios[name]):>14.3f}{spread:>18}"
            f"{memory[name] / memory['floor']:>17.3f}{memory[name] / 2**20:>8.0f}"
        )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--response", type=int, default=448)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=30, help="fewer for a quick look")
    parser.add_argument("--memory_of", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def smollm2(layers: int, seed: int) -> PreTrainedModel:
    """SmolLM2-135M's shape with random weights: the cost does not depend on the values."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    return AutoModelForCausalLM.from_config(config)


def updates(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """One forward and backward of each variant, on the same models and tokens."""
    student, teacher = smollm2(options.layers, 0), smollm2(options.layers, 1).requires_grad_(False)
    ids = torch.randint(0, 49152, (options.batch, options.prompt + options.response))
    attention = torch.ones_like(ids)
    layers = range(1, num_layers(student) + 1)
    pairs = pair_layers(layers, len(layers), num_layers(teacher))

    def floor() -> None:
        with torch.no_grad():
            base_forward(teacher, ids, attention)
        base_forward(student, ids, attention).last_hidden_state.sum().backward()

    def update(window: int) -> None:
        positions = torch.zeros(options.batch, options.response, dtype=torch.bool)
        positions[:, -window:] = True
        rows = predicting_rows(positions, options.prompt)
        with torch.no_grad(), capture_states(teacher, "all", rows) as teacher_states:
            base_forward(teacher, ids, attention)
        comparison = LayerComparison(teacher_states, pairs, positions)
        with capture_states(student, "all", rows, comparison):
            base_forward(student, ids, attention)
        result = comparison.result()
        (result.loss.total / result.loss.count).backward()

    return {
        "floor": floor,
        "all positions": lambda: update(options.response),
        "last quarter": lambda: update(options.response // 4),
    }


def time_ratios(options: argparse.Namespace) -> dict[str, list[float]]:
    """Each round's seconds over that round's floor, the order turning from round to round."""
    runs = updates(options)
    ratios: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for turn in range(options.rounds + 1):
        seconds = {}
        for name in VARIANTS[turn % 3 :] + VARIANTS[: turn % 3]:
            start = time.perf_counter()
            runs[name]()
            seconds[name] = time.perf_counter() - start
        # The first round allocates gradients and warms caches.
        if turn > 0:
            for name in VARIANTS:
                ratios[name].append(seconds[name] / seconds["floor"])
            shown = ", ".join(f"{name} {seconds[name]:.2f} s" for name in VARIANTS)
            print(f"round {turn}: {shown}", file=sys.stderr)
    return ratios


def transient_bytes(options: argparse.Namespace) -> int:
    """The peak of resident memory in an update, above what stays resident."""
    run = updates(options)[options.memory_of]
    run()
    gc.collect()
    baseline = resident_bytes()
    with PeakWatch() as watch:
        run()
    return watch.peak - baseline


def memory_in_fresh_process(name: str) -> int:
    command = [sys.executable, __file__, *sys.argv[1:], "--memory_of", name]
    # Without this, freed blocks stay resident and hide in the baseline.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(json.loads(done.stdout))


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


class PeakWatch:
    """The largest resident memory while a block runs, sampled every two milliseconds."""

    def __enter__(self) -> "PeakWatch":
        self.peak = resident_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self.peak = max(self.peak, resident_bytes())


if __name__ == "__main__":
    main()
