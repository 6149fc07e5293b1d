"""What each output-space loss costs, forward and backward, from last hidden states and heads.

    python benchmarks/objectives.py [--vocab 49152 --width 576] [--rounds 5] [--frozen-head]
    python benchmarks/objectives.py --threads 1 --cpu-time   # on a machine that others use

Times all losses in turn, round after round, in one process, and measures each one's transient
memory (peak resident set above inputs and gradient buffers) in a process of its own. Prints ratios:
to the naive top-16, which forms full logits on both sides, and for memory to TRL's chunked KL too.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from oprd.core.divergence import full_kl_loss, jsd_loss, sampled_token_loss, topk_loss

NAIVE_TOP, TRL_KL = "naive top-16", "TRL chunked reverse KL"


class Inputs:
    """Random states and heads, with gradient buffers allocated as after a first step."""

    def __init__(self, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        shape = (options.batch, options.tokens, options.width)
        self.student = torch.randn(shape).requires_grad_()
        self.teacher = torch.randn(shape)
        self.teacher_head = torch.randn(options.vocab, options.width) * options.width**-0.5
        noise = torch.randn(options.vocab, options.width) * options.width**-0.5
        self.head = (self.teacher_head + 0.1 * noise).requires_grad_(not options.frozen_head)
        for variable in (self.student, self.head):
            variable.grad = torch.ones_like(variable) if variable.requires_grad else None
        self.mask = torch.ones(shape[:2], dtype=torch.bool)
        self.tokens = torch.randint(options.vocab, shape[:2])

    @property
    def pair(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The arguments that all of our losses share."""
        return self.student, self.teacher, self.head, self.teacher_head, self.mask


def naive_log_probabilities(x: Inputs) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        log_q = (x.teacher @ x.teacher_head.T).log_softmax(-1)
    return (x.student @ x.head.T).log_softmax(-1), log_q


def naive_sampled(x: Inputs) -> Tensor:
    log_p, log_q = (
        log.gather(-1, x.tokens[..., None]).squeeze(-1) for log in naive_log_probabilities(x)
    )
    return ((log_p - log_q).detach() * log_p).mean()


def naive_top(x: Inputs) -> Tensor:
    log_p, log_q = naive_log_probabilities(x)
    log_p, ids = log_p.topk(16, dim=-1)
    return (log_p.exp() * (log_p - log_q.gather(-1, ids))).sum(-1).mean()


def naive_reverse_kl(x: Inputs) -> Tensor:
    log_p, log_q = naive_log_probabilities(x)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


def trl_reverse_kl(x: Inputs) -> Tensor:
    # Imported here: the import takes longer than a memory measurement of the other losses.
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    student, teacher = x.student.flatten(0, 1), x.teacher.flatten(0, 1)
    return ChunkedDivergenceFunction.apply(
        student, x.head, None, teacher, x.teacher_head, None, 1.0
    )[0].mean()


LOSSES: dict[str, Callable[[Inputs], Tensor]] = {
    "sampled token": lambda x: sampled_token_loss(*x.pair, x.tokens).total,
    "top-16": lambda x: topk_loss(*x.pair).total,
    "top-16 truncated": lambda x: topk_loss(*x.pair, renormalize=False).total,
    "top-16 union": lambda x: topk_loss(*x.pair, support="union").total,
    "reverse KL": lambda x: full_kl_loss(*x.pair).total,
    "forward KL": lambda x: full_kl_loss(*x.pair, direction="forward").total,
    "JSD": lambda x: jsd_loss(*x.pair).total,
    "naive sampled token": naive_sampled,
    NAIVE_TOP: naive_top,
    "naive reverse KL": naive_reverse_kl,
    TRL_KL: trl_reverse_kl,
}


def seconds(x: Inputs, loss: Callable[[Inputs], Tensor], clock: Callable[[], float]) -> float:
    start = clock()
    loss(x).backward()
    return clock() - start


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def peak_bytes(x: Inputs, loss: Callable[[Inputs], Tensor]) -> int:
    """The highest resident set during a forward and backward, above that before it."""
    baseline = peak = resident_bytes()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, resident_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    loss(x).backward()
    done.set()
    watcher.join()
    return max(1, peak - baseline)


def measure_memory(name: str) -> int:
    arguments = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
    output = subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", type=int, default=49152)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=448)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--frozen-head", action="store_true")
    parser.add_argument("--cpu-time", action="store_true", help="for a busy machine, one thread")
    parser.add_argument("--only", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--memory-of", choices=LOSSES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.only = [name for name in LOSSES if name in {*options.only, NAIVE_TOP, TRL_KL}]
    if options.memory_of:
        print(peak_bytes(Inputs(options), LOSSES[options.memory_of]))
        return

    memory = {name: measure_memory(name) for name in options.only}
    x = Inputs(options)
    clock = time.process_time if options.cpu_time else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in options.only}
    for round_ in range(options.rounds + 1):
        for name in options.only:
            taken = seconds(x, LOSSES[name], clock)
            if round_ > 0:  # the first round warms up
                times[name].append(taken)

    print(
        f"V={options.vocab} width={options.width} B={options.batch} K={options.tokens} "
        f"threads={options.threads} rounds={options.rounds} frozen head: {options.frozen_head}"
    )
    print(f"{'':24}{'time / naive top-16':>28}{'memory / naive top-16':>24}{'memory / TRL':>15}")
    for name in options.only:
        # Ratios within a round: what slows the machine slows both.
        ratios = [own / top for own, top in zip(times[name], times[NAIVE_TOP], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        of_top, of_trl = memory[name] / memory[NAIVE_TOP], memory[name] / memory[TRL_KL]
        print(f"{name:24}{spread:>28}{of_top:>24.2f}{of_trl:>15.2f}")


if __name__ == "__main__":
    main()
