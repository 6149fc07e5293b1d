"""How long `oprd --help` takes in a fresh process: as a person waits, and in CPU time.

    python benchmarks/help_time.py

On a busy machine only the CPU time means something.
"""

import resource
import statistics
import subprocess
import sys
import time

RUNS = 7
LIMIT = 0.5


def measure() -> tuple[float, float]:
    """Wall and CPU seconds of one run."""
    wall, cpu = time.perf_counter(), children_cpu()
    command = [sys.executable, "-m", "oprd.cli.main", "--help"]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - wall, children_cpu() - cpu


def children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    walls, cpus = zip(*(measure() for _ in range(RUNS)), strict=True)
    wall, cpu = statistics.median(walls), statistics.median(cpus)
    print(f"oprd --help: {wall:.2f} s, CPU {cpu:.2f} s (medians of {RUNS}; limit {LIMIT} s)")
    sys.exit(wall > LIMIT)
