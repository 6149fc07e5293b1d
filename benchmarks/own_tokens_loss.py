"""What an output loss costs between two vocabularies, beside the same over the student's alone.

    python benchmarks/own_tokens_loss.py                          # byte pairs, learned on the docs
    python benchmarks/own_tokens_loss.py --student A --teacher B  # folders or hub ids of tokenizers
    python benchmarks/own_tokens_loss.py --tokens 50 --rounds 1   # to see that it runs

A response is so many tokens of the documentation in the student's vocabulary. States and LM heads
are random, of SmolLM2-135M's width and Gemma 3 270M's: what a loss costs does not depend on them.
Measured in turns, with gradients of the student's states and head, are

1. `one`: the reverse KL over the student's vocabulary, to a teacher that shares it;
2. `products`: only the teacher's logits over its own vocabulary, which no loss between two goes
   without, at each of its states that is compared;
3. `classes`: the reverse KL over classes of tokens, a pair for each way to be ahead.

Before them stand the seconds of what is worked out once: the classes, and the ways to be ahead.
Times are CPU seconds of this process with one thread, which other work on the machine disturbs
less than wall-clock time.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from own_tokens import learned, seconds, text
from transformers import AutoTokenizer

from oprd.core.output.chunked import sum_loss, sum_losses
from oprd.core.output.divergence import ReverseKL
from oprd.core.output.head import LMHead, chunks
from oprd.core.output.pair import Pair, select_pair
from oprd.models.own_tokens import OwnTokens
from oprd.models.special_tokens import SpecialTokens

SIZES = {"student": 8000, "teacher": 3000}


def products(head: LMHead, rows: torch.Tensor) -> None:
    """Logits of rows, in chunks as a loss forms them."""
    parts = list(chunks(len(rows), head.vocab_size))
    out = rows.new_empty(max(part.stop - part.start for part in parts), head.vocab_size)
    for part in parts:
        head.logits(rows[part], out=out[: part.stop - part.start])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student")
    parser.add_argument("--teacher")
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--widths", type=int, nargs=2, default=(576, 640))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    both = tuple(
        AutoTokenizer.from_pretrained(name) if (name := getattr(options, role)) else learned(size)
        for role, size in SIZES.items()
    )
    sizes = tuple(1 + max(tokenizer.get_vocab().values()) for tokenizer in both)
    own = OwnTokens(*both, SpecialTokens.of(*both, (set(), set())))
    made: list[Any] = []
    once = {"classes": seconds(lambda: made.append(own.aligned(sizes)))}
    (aligned,) = made
    read = own.read(both[0](text(), add_special_tokens=False)["input_ids"][: options.tokens])
    met: Any = SimpleNamespace(
        response=read.compared()[None],
        behind=torch.tensor(read.latest)[None],
        ahead=torch.tensor(own.places(read.ahead))[None],
    )

    def states(side: int, count: int) -> torch.Tensor:
        return torch.randn(count, options.widths[side]).requires_grad_(side == 0)

    heads = [
        LMHead((0.05 * torch.randn(size, width)).requires_grad_(side == 0))
        for side, (size, width) in enumerate(zip(sizes, options.widths, strict=True))
    ]
    alike = LMHead(0.05 * torch.randn(sizes[0], options.widths[1]))
    ours, theirs = states(0, int(met.response.sum())), states(1, int(read.response().sum()))
    kl, mask = ReverseKL(), met.response
    same = select_pair(ours, states(1, len(ours)), heads[0], alike, mask)

    def pairs() -> list[Pair]:
        return aligned.pairs(met, (ours, theirs), (heads[0], heads[1]), 1.0)

    once["ways"] = seconds(pairs)
    runs: dict[str, Callable[[], object]] = {
        "one": lambda: sum_loss(same, kl, "sequence").total.backward(),
        "products": lambda: products(heads[1], theirs),
        "classes": lambda: sum_losses(pairs(), kl, "sequence", mask).total.backward(),
    }
    found: dict[str, list[float]] = {name: [] for name in runs}
    # The first round pays for pages that later ones find.
    for number in range(options.rounds + 1):
        for name, run in runs.items():
            took = seconds(run)
            if number:
                found[name].append(took)
    report = {
        "tokens": {"student": sizes[0], "teacher": sizes[1]},
        "classes": aligned.classes.met.count,
        "compared": len(ours),
        "teacher_states": len(theirs),
        "ways_ahead": len(own.aheads),
        "pairs": len(pairs()),
        "once_seconds": {name: round(took, 2) for name, took in once.items()},
        "seconds": {name: _spread(times) for name, times in found.items()},
        "beside_one": {
            name: _spread([a / b for a, b in zip(found[name], found["one"], strict=True)])
            for name in ("products", "classes")
        },
    }
    print(json.dumps(report, indent=2))


def _spread(values: list[float]) -> dict[str, float]:
    found = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    main()
