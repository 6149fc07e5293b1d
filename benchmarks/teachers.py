"""What a teacher costs that reads a prompt of its own, or that a reference is read beside.

    python benchmarks/teachers.py                # SmolLM2-135M's shape, a prompt of 1,000 tokens
    python benchmarks/teachers.py --layers_count 6 --rounds 9

Each update takes turns with the least that it could cost: the same forward passes, the student's
backward pass, and a trivial loss. Ratios are within a round. Times are CPU seconds of this process
with one thread, which other work on the machine disturbs less than wall-clock time; `oprd bench
--objectives oprd_prompt,oprd_reference` measures that, and memory.
"""

import argparse
import json
import statistics
import time
import warnings

import torch

from oprd.analysis.setup import Models, Scene, Setup
from oprd.analysis.updates import all_objectives

OURS = ("oprd", "oprd_prompt", "oprd_reference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers_count", type=int)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--prompt_length", type=int, default=64)
    parser.add_argument("--response_length", type=int, default=192)
    parser.add_argument("--teacher_prompt_length", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = vars(parser.parse_args())
    rounds = options.pop("rounds")
    # Libraries announce their own renamings, which are no news to the person here.
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(1)
    setup = Setup(device="cpu", **options)
    scene, every = Scene(setup, Models(setup)), all_objectives()
    names = [name for ours in OURS for name in (every[ours].floor, ours)]
    runs = {name: every[name].prepare(scene) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = time.process_time()
            runs[name]()
            # The first round allocates gradients and warms caches.
            if turn:
                seconds[name].append(time.process_time() - began)
    found = {}
    for ours in OURS:
        pairs = zip(seconds[ours], seconds[every[ours].floor], strict=True)
        ratios = sorted(one / least for one, least in pairs)
        found[ours] = {
            "seconds": statistics.median(seconds[ours]),
            "to_floor": statistics.median(ratios),
            "least": ratios[0],
            "most": ratios[-1],
        }
    print(json.dumps({**options, "rounds": rounds, "objectives": found}, indent=1))


if __name__ == "__main__":
    main()
