"""What reading both LM heads costs: A = W_Sᵀ M W_S and B = W_Sᵀ M W_T, and the metric's rows.

    python benchmarks/heads.py                      # |V| = 151,936, widths 896 and 1,024
    python benchmarks/heads.py --teacher_width 2560
    python benchmarks/heads.py --vocab_size 20000   # a part of it, to see that it runs

Heads are random: what they cost does not depend on their values. Measured are

1. `moments` beside the two products W_Sᵀ W_S and W_Sᵀ W_T alone, in turns: both read the heads a
   chunk at a time and sum in float64;
2. the most memory that `moments` holds beside the heads, where blocks that are freed leave the
   process (`MALLOC_MMAP_THRESHOLD_=65536 MALLOC_TRIM_THRESHOLD_=0` in its environment);
3. seconds a calibration row under `fisher`.

Times are CPU seconds of this process with one thread, which other work on the machine disturbs
less than wall-clock time.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from oprd.analysis.memory import transient_bytes
from oprd.core.bridge.heads import HeadPair, HeadStatistics
from oprd.core.output.head import LMHead


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of it."""
    began = time.process_time()
    run()
    return time.process_time() - began


def products(heads: HeadPair) -> tuple[torch.Tensor, torch.Tensor]:
    """[S, S] and [S, H] without a metric, the least that A and B take."""
    width, device = heads.student.width, torch.device("cpu")
    both = torch.zeros(width, heads.columns - 1, dtype=torch.float64)
    for _, tile in heads.tiles(device):
        both.addmm_(tile[:, :width].T, tile[:, :-1])
    return both[:, :width], both[:, width:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab_size", type=int, default=151_936)
    parser.add_argument("--student_width", type=int, default=896)
    parser.add_argument("--teacher_width", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    # As many as are read at once: fewer would only wait.
    parser.add_argument("--rows", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    widths = options.student_width, options.teacher_width
    heads = HeadPair(*(LMHead(torch.randn(options.vocab_size, width)) for width in widths))
    centered = HeadStatistics(heads, "centered")
    memory = transient_bytes(centered.moments, torch.device("cpu"))
    pairs = [
        (seconds(lambda: products(heads)), seconds(centered.moments)) for _ in range(options.rounds)
    ]
    fisher, rows = HeadStatistics(heads, "fisher"), torch.randn(options.rows, widths[1])
    of_rows = seconds(lambda: fisher.update(rows)) / options.rows
    ratios = [whole / least for least, whole in pairs]
    found = {
        **vars(options),
        "products_seconds": statistics.median(least for least, _ in pairs),
        "moments_to_products": {
            "median": statistics.median(ratios),
            "min": min(ratios),
            "max": max(ratios),
        },
        "moments_mib": memory / 2**20,
        "fisher_seconds_a_row": of_rows,
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
