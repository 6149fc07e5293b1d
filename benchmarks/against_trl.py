"""Whole training steps of OPRDTrainer and of TRL's DistillationTrainer: time and peak memory.

    python benchmarks/against_trl.py [--student PATH --teacher PATH] [--response 128]

A step is rollout, update and optimizer step, with the same prompts, seeds, batch and optimizer, and
TRL's own defaults otherwise. Every response is as long as allowed, so that no trainer gains by
shorter ones. Each trainer lives in a process of its own, and the two take turns step by step; the
first step warms up. Memory is measured in two further processes, one after the other.

Without --student both models are the demo's, which `make demo` leaves in .cache.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

DEMO_MODEL = Path(__file__).parents[1] / ".cache" / "smollm2-135m-instruct"
TRAINERS = ("oprd", "trl")
MIB = 2**20


class Step(NamedTuple):
    """What a step took."""

    seconds: float
    rollout_seconds: float
    peak_bytes: int
    transient_bytes: int


class Worker:
    """A trainer in a process of its own, which makes a step when it is told to."""

    def __init__(self, name: str, options: argparse.Namespace, environment: dict[str, str]) -> None:
        self._name = name
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        before = dict(os.environ)
        os.environ.update(environment)
        self._process = context.Process(target=serve, args=(name, options, theirs), daemon=True)
        self._process.start()
        os.environ.clear()
        os.environ.update(before)
        theirs.close()

    def step(self) -> Step:
        """Let it make one step."""
        try:
            self._pipe.send("step")
            return Step(*self._pipe.recv())
        except (EOFError, BrokenPipeError):
            raise SystemExit(f"the process of {self._name} ended: see its error above.") from None

    def end(self) -> None:
        """Stop the process."""
        self._process.terminate()
        self._process.join()


def main() -> None:
    options = parse_options()
    if not options.student.exists():
        raise SystemExit(
            f"there is no model in {options.student}: run make demo, or pass --student."
        )
    steps = time_in_turns(options)
    peaks = {name: measure_alone(name, options) for name in TRAINERS}
    print(
        f"{options.student.name}: B={options.batch}, {options.response} response tokens, "
        f"{options.threads} threads, gradient checkpointing: {options.checkpointing}; medians of "
        f"{options.steps} steps"
    )
    print(f"{'':8}{'step s':>8}{'rollout s':>11}{'rest s':>8}{'peak MiB':>10}{'transient':>11}")
    for name in TRAINERS:
        whole = statistics.median(step.seconds for step in steps[name])
        rollout = statistics.median(step.rollout_seconds for step in steps[name])
        rest = statistics.median(step.seconds - step.rollout_seconds for step in steps[name])
        peak, transient = peaks[name].peak_bytes / MIB, peaks[name].transient_bytes / MIB
        print(f"{name:8}{whole:>8.2f}{rollout:>11.2f}{rest:>8.2f}{peak:>10.0f}{transient:>11.0f}")
    print_ratios(steps, peaks)


def print_ratios(steps: dict[str, list[Step]], peaks: dict[str, Step]) -> None:
    """Of steps made one after the other, so that what slows the machine slows both."""
    rounds = list(zip(steps["trl"], steps["oprd"], strict=True))
    ratios = {
        "step time": [trl.seconds / ours.seconds for trl, ours in rounds],
        "without rollout": [
            (trl.seconds - trl.rollout_seconds) / (ours.seconds - ours.rollout_seconds)
            for trl, ours in rounds
        ],
        "peak memory": [peaks["trl"].peak_bytes / peaks["oprd"].peak_bytes],
        "transient memory": [peaks["trl"].transient_bytes / peaks["oprd"].transient_bytes],
    }
    for name, found in ratios.items():
        spread = f" ({min(found):.2f}–{max(found):.2f})" if len(found) > 1 else ""
        print(f"TRL / OPRD, {name}: {statistics.median(found):.2f}{spread}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", type=Path, default=DEMO_MODEL)
    parser.add_argument("--teacher", type=Path, help="default: the student's path")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--response", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--checkpointing",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="gradient checkpointing, TRL's default",
    )
    return parser.parse_args()


def time_in_turns(options: argparse.Namespace) -> dict[str, list[Step]]:
    workers = {name: Worker(name, options, {}) for name in TRAINERS}
    steps: dict[str, list[Step]] = {name: [] for name in TRAINERS}
    for turn in range(1 + options.steps):
        for name in TRAINERS if turn % 2 else reversed(TRAINERS):
            step = workers[name].step()
            print(f"step {turn}, {name}: {step.seconds:.2f} s", flush=True)
            # The first step allocates gradients and optimizer state.
            if turn > 0:
                steps[name].append(step)
    for worker in workers.values():
        worker.end()
    return steps


def measure_alone(name: str, options: argparse.Namespace) -> Step:
    from oprd.analysis.memory import FRESH_PROCESS

    worker = Worker(name, options, FRESH_PROCESS)
    worker.step()
    step = worker.step()
    worker.end()
    return step


def serve(name: str, options: argparse.Namespace, pipe: Connection) -> None:
    """Train in this process, one step for each message."""
    import torch
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback, set_seed
    from transformers.utils import logging
    from trl import DistillationConfig, DistillationTrainer

    from oprd import OPRDConfig, OPRDTrainer
    from oprd.analysis.memory import PeakWatch
    from oprd.evaluation.tasks import arithmetic

    # Libraries announce their own renamings, which are no news to the person here.
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    trainer_class, config_class = {
        "oprd": (OPRDTrainer, OPRDConfig),
        "trl": (DistillationTrainer, DistillationConfig),
    }[name]

    class Timed(trainer_class):
        rollout_seconds = 0.0

        def _generate(self, *args, **kwargs):
            start = time.perf_counter()
            output = super()._generate(*args, **kwargs)
            self.rollout_seconds = time.perf_counter() - start
            return output

    class Turns(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            pipe.recv()
            set_seed(options.seed + state.global_step)
            self.watch = PeakWatch().__enter__()
            self.start = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            seconds = time.perf_counter() - self.start
            self.watch.__exit__()
            peak, transient = self.watch.peak, self.watch.peak - self.watch.baseline
            pipe.send((seconds, trainer.rollout_seconds, peak, transient))

    steps = 1 + options.steps
    with tempfile.TemporaryDirectory() as folder:
        trainer = Timed(
            model=str(options.student),
            teacher_model=str(options.teacher or options.student),
            args=config_class(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=options.batch,
                max_completion_length=options.response,
                generation_kwargs={"min_new_tokens": options.response},
                gradient_checkpointing=options.checkpointing,
                learning_rate=1e-6,
                seed=options.seed,
                bf16=False,
                use_cpu=True,
                dataloader_pin_memory=False,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(
                [{"prompt": p.prompt} for p in arithmetic.problems("train", 64, seed=options.seed)]
            ),
            callbacks=[Turns()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


if __name__ == "__main__":
    main()
