"""What fitting a bridge in one pass costs, and how it compares with training it by AdamW.

    python benchmarks/bridge_fit.py            # 28 layers x 256 against 36 x 320, 20,000 rows
    python benchmarks/bridge_fit.py --small    # a tenth of it, to see that it runs

Two Llama-shaped models with random weights read the same random tokens. Measured are

1. statistics and solves (all pairs, every rank up to the highest) as a share of the two models'
   forward passes over the same rows;
2. the whole fit against epochs of AdamW that read the rollouts anew in every epoch: a part of one
   is measured and 20 are extrapolated (AdamW is spared the pass that finds P_T and µ_T);
3. R² and mean row cosine on held-out rows at every rank against AdamW after 20 epochs over kept
   rows, on the same targets, at three learning rates. Every row of P_S trains by itself under
   AdamW, so that one run at the highest rank holds those of all lower ranks. Beside the default
   ridge stands one chosen per layer: solved on four fifths of the rows, judged on the last fifth,
   then solved on all.

Times are CPU seconds of this process with one thread, which other work on the machine disturbs
less than wall-clock time; wall-clock time is printed beside it.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from oprd.core.bridge import Bridge, BridgeFitter
from oprd.core.bridge.ridge import choose_ridge
from oprd.core.capture import capture_states
from oprd.core.layers import pair_layers

VOCABULARY, TOKENS, SEQUENCES, STEP_ROWS = 1000, 125, 8, 250
RATES = (1e-4, 1e-3, 1e-2)
PAPER_EPOCHS = 20

Rows = dict[int, Tensor]


class Clock:
    """CPU and wall-clock seconds by name."""

    def __init__(self):
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the block's time to the name's."""
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu[name] = self.cpu.get(name, 0) + time.process_time() - cpu
        self.wall[name] = self.wall.get(name, 0) + time.perf_counter() - wall


def random_model(layers: int, width: int, seed: int) -> LlamaModel:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=8 * width // 3 // 8 * 8,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        max_position_embeddings=TOKENS,
    )
    return LlamaModel(config).eval().requires_grad_(False)


def random_tokens(rows: int, seed: int) -> list[Tensor]:
    """Batches of sequences whose tokens are as unevenly frequent as words are."""
    generator = torch.Generator().manual_seed(seed)
    frequency = 1 / torch.arange(1, VOCABULARY + 1)
    batch = TOKENS * SEQUENCES
    return [
        torch.multinomial(frequency, batch, replacement=True, generator=generator).view(-1, TOKENS)
        for _ in range(rows // batch)
    ]


@torch.no_grad()
def read(model: LlamaModel, tokens: Tensor, layers: list[int]) -> Rows:
    with capture_states(model, layers) as states:
        model(input_ids=tokens, use_cache=False)
    return {layer: states[layer].flatten(0, 1) for layer in layers}


class Pair:
    """The two models, and which layers meet."""

    def __init__(self, student: LlamaModel, teacher: LlamaModel):
        self.student, self.teacher = student, teacher
        count = student.config.num_hidden_layers
        self.pairs = pair_layers(range(1, count + 1), count, teacher.config.num_hidden_layers)
        self.student_layers = [pair.student for pair in self.pairs]
        self.teacher_layers = sorted({pair.teacher for pair in self.pairs})

    def read(self, tokens: Tensor) -> tuple[Rows, Rows]:
        """The rows of all layers of both models."""
        return (
            read(self.student, tokens, self.student_layers),
            read(self.teacher, tokens, self.teacher_layers),
        )


class Adam:
    """Eq. 13 as the paper solves it: all pairs' P_S [P, R, S] at once, by AdamW."""

    def __init__(self, shape: tuple[int, int, int], rate: float):
        torch.manual_seed(0)
        bound = shape[2] ** -0.5
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.optimizer = torch.optim.AdamW([self.weight], lr=rate)

    def step(self, student: Tensor, target: Tensor) -> None:
        """One step from rows [P, N, S] to their targets [P, N, R]."""
        loss = (student @ self.weight.mT - target).square().sum(dim=2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def stacked(bridge: Bridge, rows: tuple[Rows, Rows], places: range) -> tuple[Tensor, Tensor]:
    """Student rows [P, N, S] of some pairs, and the teacher's projected ones [P, N, R]."""
    student, teacher = rows
    pairs = [bridge.pairs[place] for place in places]
    targets = [bridge.project_teacher(p.student, teacher[p.teacher]) for p in pairs]
    return torch.stack([student[p.student] for p in pairs]), torch.stack(targets)


def scores(projected: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """R² and mean row cosine of rows [P, N, R] at every rank, the mean over pairs: [R] each."""
    residual = (target - projected).square().sum(dim=1).cumsum(dim=1)
    r_squared = 1 - residual / target.square().sum(dim=1).cumsum(dim=1)
    dot = (projected * target).cumsum(dim=2)
    norms = projected.square().cumsum(dim=2) * target.square().cumsum(dim=2)
    cosine = (dot / norms.sqrt().clamp(min=1e-12)).mean(dim=1)
    return r_squared.mean(dim=0), cosine.mean(dim=0)


def measure_fit(
    models: Pair, batches: list[Tensor], rank: int, clock: Clock
) -> tuple[BridgeFitter, list[tuple[Rows, Rows]]]:
    """A fit with its times, and the rows it saw."""
    fitter, kept = new_fitter(models), []
    for tokens in batches:
        with clock("forward"):
            rows = models.read(tokens)
        with clock("statistics"):
            fitter.update(*rows)
        kept.append(rows)
    with clock("solves"):
        for r in range(1, rank + 1):
            fitter.solve(r)
    return fitter, kept


def new_fitter(models: Pair) -> BridgeFitter:
    widths = models.student.config.hidden_size, models.teacher.config.hidden_size
    return BridgeFitter(models.pairs, *widths)


def measure_adam(models: Pair, batches: list[Tensor], bridge: Bridge, clock: Clock) -> None:
    places = range(len(bridge.pairs))
    adam = Adam(tuple(bridge.student_projection.shape), RATES[0])
    with clock("adam"):
        for tokens in batches:
            student, target = stacked(bridge, models.read(tokens), places)
            for index in torch.arange(student.shape[1]).split(STEP_ROWS):
                adam.step(student[:, index], target[:, index])


def report_times(clock: Clock, epoch_part: float) -> None:
    for seconds, name in ((clock.cpu, "CPU"), (clock.wall, "wall")):
        ours = seconds["forward"] + seconds["statistics"] + seconds["solves"]
        adam = PAPER_EPOCHS * seconds["adam"] / epoch_part
        share = ours / seconds["forward"] - 1
        print(f"{name} seconds: {json.dumps({k: round(v, 2) for k, v in seconds.items()})}")
        print(f"  statistics and solves of every rank: {share:.1%} of the forward passes")
        print(
            f"  the whole fit: {ours:.1f} s; {PAPER_EPOCHS} epochs of AdamW, extrapolated from "
            f"{epoch_part:.2f} of one: {adam:.0f} s, {adam / ours:.1f} times as long",
            flush=True,
        )


def exact_solutions(
    models: Pair, fitter: BridgeFitter, kept: list[tuple[Rows, Rows]], rank: int, clock: Clock
) -> dict[str, Bridge]:
    part, validation = new_fitter(models), new_fitter(models)
    cut = len(kept) * 4 // 5
    with clock("choosing ridges"):
        for n, rows in enumerate(kept):
            (part if n < cut else validation).update(*rows)
        ridges = choose_ridge(part, validation, rank)
        chosen = fitter.solve(rank, ridge=ridges)
    print(f"chosen ridges by student layer: {ridges}")
    print(f"  choosing them took {clock.cpu['choosing ridges']:.1f} CPU seconds", flush=True)
    return {
        "exact": fitter.solve(rank),
        "exact, center=False": fitter.solve(rank, center=False),
        "exact, chosen ridge": chosen,
    }


def adam_solution(student: Tensor, target: Tensor, rate: float) -> Tensor:
    """P_S after the paper's number of epochs over kept rows [P, N, S]."""
    adam = Adam((student.shape[0], target.shape[2], student.shape[2]), rate)
    for epoch in range(PAPER_EPOCHS):
        order = torch.randperm(student.shape[1], generator=torch.Generator().manual_seed(epoch))
        for index in order.split(STEP_ROWS):
            adam.step(student[:, index], target[:, index])
    return adam.weight.detach()


def gathered(bridge: Bridge, kept: list[tuple[Rows, Rows]], places: range) -> list[Tensor]:
    parts = zip(*(stacked(bridge, rows, places) for rows in kept), strict=True)
    return [torch.cat(part, dim=1) for part in parts]


def report_scores(results: dict[str, tuple[Tensor, Tensor]], rank: int) -> None:
    shown = [r for r in (1, 2, 4, 8, 16, 32, 64) if r <= rank]
    print("held out, mean over pairs: R² / cosine")
    print(f"{'rank':>20}" + "".join(f"{r:>17}" for r in shown))
    for name, (r_squared, cosine) in results.items():
        cells = (f"{r_squared[r - 1]:.4f} / {cosine[r - 1]:.4f}" for r in shown)
        print(f"{name:>20}" + "".join(f"{cell:>17}" for cell in cells))
    for exact in (name for name in results if name.startswith("exact")):
        for name in (name for name in results if name.startswith("AdamW")):
            margins = [a - b for a, b in zip(results[exact], results[name], strict=True)]
            worst = [f"{float(margin.min()):+.4f}" for margin in margins]
            print(f"{exact} minus {name}, worst rank: R² {worst[0]}, cosine {worst[1]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="few layers, narrow, 5,000 rows")
    parser.add_argument("--rows", type=int, help="rows of the fit; default 20,000")
    parser.add_argument("--timed-rows", type=int, default=2_000, help="of the timed AdamW epoch")
    parser.add_argument("--every", type=int, default=4, help="AdamW trains on every n-th pair")
    args = parser.parse_args()
    torch.set_num_threads(1)
    shape = ((4, 64), (6, 96)) if args.small else ((28, 256), (36, 320))
    rows = args.rows or (5_000 if args.small else 20_000)
    models = Pair(*(random_model(*size, seed) for seed, size in enumerate(shape)))
    batches, held_out = random_tokens(rows, seed=1), random_tokens(max(rows // 5, 2000), seed=2)
    models.read(batches[0])

    clock, rank = Clock(), min(64, *(width for _, width in shape))
    fitter, kept = measure_fit(models, batches, rank, clock)
    timed = batches[: args.timed_rows // (TOKENS * SEQUENCES)]
    measure_adam(models, timed, fitter.solve(rank), clock)
    report_times(clock, len(timed) / len(batches))

    bridges = exact_solutions(models, fitter, kept, rank, clock)
    places = range(args.every - 1, len(models.pairs), args.every)
    student, target = gathered(bridges["exact"], kept, places)
    del kept
    test = [models.read(tokens) for tokens in held_out]
    test_student, test_target = gathered(bridges["exact"], test, places)
    results = {}
    for name, bridge in bridges.items():
        layers = [bridge.pairs[place].student for place in places]
        projected = [
            bridge.project_student(layer, rows)
            for layer, rows in zip(layers, test_student, strict=True)
        ]
        results[name] = scores(torch.stack(projected), test_target)
    for rate in RATES:
        weight = adam_solution(student, target, rate)
        results[f"AdamW {rate:g}"] = scores(test_student @ weight.mT, test_target)
    report_scores(results, rank)


if __name__ == "__main__":
    main()
