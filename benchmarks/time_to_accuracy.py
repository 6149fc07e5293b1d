"""Seconds until a share of the demo's gap is closed, by method: OPRD, reverse KL, TRL's trainer.

    python benchmarks/time_to_accuracy.py                     # three seeds, at the best rates
    python benchmarks/time_to_accuracy.py --tune --seeds 9    # rates, on other problems
    python benchmarks/time_to_accuracy.py --table             # of what is there

Every run is of the demo's pair, task and batch, at a constant rate after a warm-up of three steps.
Seconds are processor time of one thread, so that runs may share a machine; evaluations, every few
steps, are not counted. A run ends when it is there or has spent its budget. Results are added to a
file as they come, and what is there is not made again.
"""

import argparse
import json
import shutil
import sys
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PrinterCallback, TrainerCallback
from transformers.utils import logging

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "recipes" / "demo"))

from clock import RESULTS, SHARE, points, reached, runs_in, took  # noqa: E402 # beside this script
from demo import FEWER_ROLLOUTS, HERE, MAX_TOKENS, make_trainer  # noqa: E402 # found on the path above
from smollm2 import base_model_folder  # noqa: E402

from oprd.evaluation.evaluate import evaluate_model  # noqa: E402
from oprd.evaluation.tasks.base import Task  # noqa: E402
from oprd.evaluation.tasks.load import generate_task  # noqa: E402

TRL = "TRL's DistillationTrainer"
KL = {"representation_weight": 0.0, "output_loss": "reverse_kl"}
STILL_FEWER = {**FEWER_ROLLOUTS, "updates_per_rollout": 4}
TEACHER_FIRST = {"teacher_prefix": {"from": 1, "to": 0, "steps": 24}}
# Settings, and rates to choose from, of which a run takes the first. OPRD's is the better one that
# --tune found for its fastest form, the baselines' the reverse KL's best one of the lab's grid for
# this pair.
METHODS: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "OPRD": ({}, (1e-4, 2e-4)),
    "OPRD, fewer rollouts": (FEWER_ROLLOUTS, (1e-4, 2e-4)),
    "OPRD, the teacher's text at first": (TEACHER_FIRST, (1e-4, 2e-4)),
    "OPRD, fewer rollouts, the teacher's text at first": (
        {**FEWER_ROLLOUTS, **TEACHER_FIRST},
        (1e-4, 2e-4),
    ),
    "OPRD, fewer rollouts, ended ones left": (
        {**FEWER_ROLLOUTS, "leave_ended": True},
        (1e-4, 2e-4),
    ),
    "OPRD, four updates a rollout": (STILL_FEWER, (1e-4, 2e-4)),
    "OPRD, four updates a rollout, the teacher's text at first": (
        {**STILL_FEWER, **TEACHER_FIRST},
        (1e-4, 2e-4),
    ),
    "OPRD, half of earlier steps": ({"replay": 32}, (1e-4, 2e-4)),
    "OPRD, half of the prompts by distance": ({"curriculum": "error"}, (1e-4, 2e-4)),
    "OPRD, half begun by the teacher": (
        {"teacher_prefix": 0.5, "teacher_prefix_length": 12},
        (1e-4, 2e-4),
    ),
    "OPRD, short rollouts first": (
        {"rollout_horizon": {"from": 24, "to": MAX_TOKENS, "steps": 16}},
        (1e-4, 2e-4),
    ),
    "OPRD, positions by divergence": ({"positions": "divergence"}, (1e-4, 2e-4)),
    "reverse KL": (KL, (5e-5, 1e-4)),
    TRL: ({}, (5e-5, 1e-4)),
}
# Of the problems of a run's training set; those that rates are chosen on are drawn with others.
FIRST_SEED, TUNING_SEED = 200, 300


class Clock(TrainerCallback):
    """Counts what training takes, and evaluates every few steps with the clock stopped."""

    def __init__(self, evaluate: Any, every: int, target: float, budget: float) -> None:
        self._evaluate, self._every = evaluate, every
        self._target, self._budget = target, budget
        self.seconds = 0.0
        self.curve: list[tuple[int, float, float]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin to count."""
        self._since = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look how good the student is, and whether that is enough."""
        self.seconds += time.process_time() - self._since
        if state.global_step % self._every == 0:
            solved = self._evaluate()
            self.curve.append((state.global_step, self.seconds, solved))
            print(f"    step {state.global_step}: {self.seconds:.0f} s, {solved:.1%}", flush=True)
            control.should_training_stop |= solved >= self._target
        control.should_training_stop |= self.seconds > self._budget
        self._since = time.process_time()


def main() -> None:
    options = parse_options()
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    options.run.mkdir(parents=True, exist_ok=True)
    file = options.results
    file.parent.mkdir(parents=True, exist_ok=True)
    if not options.table:
        for seed in options.seeds:
            for method in options.methods:
                rates = METHODS[method][1]
                for rate in options.rates or (rates if options.tune else rates[:1]):
                    key = {
                        "method": method,
                        "rate": rate,
                        "seed": seed,
                        "tuning": options.tune,
                        "problems": options.problems,
                        "rollouts": options.rollouts,
                        "every": options.every,
                    }
                    if key not in [line["key"] for line in runs_in(file)]:
                        print(f"{method}, {rate:g}, seed {seed}", flush=True)
                        found = {"key": key, **run(options, method, rate, seed)}
                        with file.open("a") as lines:
                            lines.write(json.dumps(found) + "\n")
    print_table(runs_in(file))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--rates", type=float, nargs="+", help="in place of a method's own")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--rollouts", type=int, default=8, help="rollouts a step")
    parser.add_argument("--every", type=int, default=8, help="steps between evaluations")
    parser.add_argument("--problems", type=int, default=160, help="held-out problems")
    parser.add_argument("--budget", type=float, default=850, help="processor seconds of a run")
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "time-to-accuracy")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


def run(options: argparse.Namespace, method: str, rate: float, seed: int) -> dict[str, Any]:
    """Train with one method until it is there or its budget is spent."""
    steps = 400
    first = TUNING_SEED if options.tune else FIRST_SEED
    train = generate_task("additions", "train", steps * options.rollouts, seed=first + seed)
    held_out = generate_task("additions", "test", options.problems, seed=int(options.tune))
    folder = options.run / "now"
    # Of a run that was ended in its midst.
    shutil.rmtree(folder, ignore_errors=True)
    settings = {
        "output_dir": str(folder),
        "learning_rate": rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 3,
        "seed": seed,
        "disable_tqdm": True,
        "logging_steps": 8,
    }
    trainer = _trainer(options, method, train, settings, steps)

    def solved(model: Any) -> float:
        evaluation = evaluate_model(
            model,
            trainer.processing_class,
            held_out,
            samples=1,
            top_p=1.0,
            max_new_tokens=MAX_TOKENS,
            batch_size=options.problems,
            progress=False,
        )
        return evaluation.summary.average.value

    student, teacher = trainer.accelerator.unwrap_model(trainer.model), trainer.teacher_model
    before, best = solved(student), solved(teacher)
    target = before + SHARE * (best - before)
    clock = Clock(lambda: solved(student), options.every, target, options.budget)
    trainer.add_callback(clock)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return {"before": before, "teacher": best, "spent": clock.seconds, "curve": clock.curve}


def _trainer(
    options: argparse.Namespace, method: str, train: Task, settings: dict[str, Any], steps: int
) -> Any:
    ours = argparse.Namespace(
        steps=steps, rollouts=options.rollouts, learning_rate=1e-4, run=options.run / "now"
    )
    trainer = make_trainer(ours, train, **{**settings, **METHODS[method][0]})
    if method != TRL:
        return trainer
    from peft import PeftModel
    from trl import DistillationConfig, DistillationTrainer

    base = AutoModelForCausalLM.from_pretrained(
        base_model_folder(ROOT / ".cache"), dtype=torch.float32
    )
    merged: Any = PeftModel.from_pretrained(base, str(HERE / "teacher"))
    names = ("per_device_train_batch_size", "gradient_checkpointing", "use_cpu", "report_to")
    shared = {name: getattr(trainer.args, name) for name in names}
    return DistillationTrainer(
        model=trainer.student,
        teacher_model=merged.merge_and_unload(),
        args=DistillationConfig(
            **settings,
            **shared,
            max_steps=steps,
            max_completion_length=MAX_TOKENS,
            save_strategy="no",
            # Its default, bfloat16, takes a processor several times as long.
            bf16=False,
        ),
        train_dataset=trainer.train_dataset,
        processing_class=trainer.processing_class,
    )


def print_table(results: Iterable[Mapping[str, Any]]) -> None:
    """All that is there, the runs that rates were chosen by among them."""
    print(f"processor seconds of one thread until {SHARE:.0%} of the gap is closed")
    print(
        "| method | rate | seed | problems | seconds | last accuracy |\n|---|---|---|---|---|---|"
    )
    for line in results:
        key = line["key"]
        said = f"{'over ' if reached(line) is None else ''}{took(line):.0f}"
        seed = f"{key['seed']}{', tuning' if key['tuning'] else ''}"
        cells = (key["method"], f"{key['rate']:g}", seed, str(key["problems"]), said)
        print(f"| {' | '.join(cells)} | {points(line)[-1][1]:.0%} |")


if __name__ == "__main__":
    main()
