"""Where an update waits for a CUDA device: a table by objective and by line.

    python benchmarks/syncs.py [--json FILE]

Without a device it says so, and writes an empty list.
"""

import argparse
import json
from pathlib import Path

import torch

from oprd.analysis.setup import Models, Scene, Setup
from oprd.analysis.syncs import host_syncs
from oprd.analysis.updates import all_objectives

OBJECTIVES = ("floor", "oprd", "oprd_window", "oprd_prefix", "oprd_bridge", "topk", "reverse_kl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    if torch.cuda.is_available():
        setup = Setup(shape="qwen2.5-0.5b", layers_count=4, dtype="bfloat16")
        scene = Scene(setup, Models(setup))
        for name in OBJECTIVES:
            run = all_objectives()[name].prepare(scene)
            run()
            counts = host_syncs(run)
            found += [{"objective": name, "place": p, "count": n} for p, n in counts.items()]
    else:
        print("there is no CUDA device: nothing waits for one.")
    print("| objective | where the host waits | how often |\n|---|---|---|")
    for one in found:
        print(f"| {one['objective']} | {one['place']} | {one['count']} |")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
