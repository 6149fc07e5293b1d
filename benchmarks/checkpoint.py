"""What a checkpoint costs beside one without a manifest: the demo's student, saved in turns.

    python benchmarks/checkpoint.py

Needs `make demo`'s model in .cache. Training waits for the save itself; `added` is what a manifest
adds to that, timed alone, which tells more on a machine that does other things. Files are brought
to the disk and hashed beside the next step (`hashed`). Before each save the disk has nothing else
to do.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.distillation_trainer import DistillationTrainer

from oprd.evaluation.tasks.load import generate_task

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "recipes" / "demo"))

from demo import make_trainer  # noqa: E402 # found on the path above


class Saves(TrainerCallback):
    """Saves after the first step, when the optimizer has its state, once in each way a round."""

    def __init__(self, rounds: int) -> None:
        self.rounds, self.trainer = rounds, None
        names = ("without", "with", "added", "hashed")
        self.seconds: dict[str, list[float]] = {name: [] for name in names}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save, and delete what was saved."""
        trainer: Any = self.trainer
        ways: dict[str, Callable[[], None]] = {
            "without": lambda: DistillationTrainer._save_checkpoint(trainer, trainer.model, None),
            "with": lambda: trainer._save_checkpoint(trainer.model, None),
        }
        for number in range(self.rounds + 1):
            added = timed(lambda: self.empty(trainer))
            trainer.checkpoints.wait()
            self.seconds["added"] += [added] if number else []
            for name in sorted(ways, reverse=bool(number % 2)):
                os.sync()
                taken = timed(ways[name])
                hashed = timed(trainer.checkpoints.wait)
                shutil.rmtree(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")
                if number:  # the first round warms up
                    self.seconds[name].append(taken)
                    self.seconds["hashed"] += [hashed] if name == "with" else []

    @staticmethod
    def empty(trainer: Any) -> None:
        """All that is done beside Transformers' save."""
        with trainer.checkpoints.saving():
            pass


def timed(act: Callable[[], None]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given = argparse.Namespace(run=Path(folder), steps=1, rollouts=1, learning_rate=1e-4)
        trainer = make_trainer(
            given, generate_task("additions", "train", 1, seed=2), optim="adamw_torch"
        )
        saves = Saves(options.rounds)
        saves.trainer = trainer
        trainer.add_callback(saves)
        trainer.train()
    ratios = [a / b for a, b in zip(saves.seconds["with"], saves.seconds["without"], strict=True)]
    for name, seconds in saves.seconds.items():
        print(f"{name}: {median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})")
    added = max(saves.seconds["added"]) / min(saves.seconds["without"])
    print(f"added / without, at its worst: {added:.4f}")
    print(f"with / without: {median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
