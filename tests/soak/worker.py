"""A run of the soak: one process of it, begun or gone on with.

python -m tests.soak.worker FOLDER STEPS SAVE_STEPS [LOGGING_STEPS]
"""

import sys
from pathlib import Path
from typing import Any

import psutil
from transformers import TrainerCallback

from tests import tiny
from tests.training.runs import trainer, weights

# Resident bytes of the main process, at every so many steps.
RSS, EVERY = "rss.txt", 50


class Resident(TrainerCallback):
    """Writes down how much memory the process holds."""

    def __init__(self, file: Path) -> None:
        self._file, self._process = file, psutil.Process()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero and state.global_step % EVERY == 0:
            with self._file.open("a") as file:
                file.write(f"{state.global_step} {self._process.memory_info().rss}\n")


def main(folder: str, steps: str, save_steps: str, logging_steps: str = "1") -> None:
    """Train to the last step; a student that samples, with dropout, and Adam's moments."""
    made = trainer(
        Path(folder),
        student=tiny.model(seed=1, num_hidden_layers=2, attention_dropout=0.2),
        teacher=tiny.model(seed=2, num_hidden_layers=2),
        rollout=None,
        max_steps=int(steps),
        save_steps=int(save_steps),
        logging_steps=int(logging_steps),
        per_device_train_batch_size=2,
        max_completion_length=4,
        optim="adamw_torch",
        learning_rate=1e-3,
        lr_scheduler_type="linear",
        save_strategy="steps",
        save_total_limit=2,
        resume_from_checkpoint="auto",
    )
    made.add_callback(Resident(Path(folder) / RSS))
    made.train()
    made.save_model()
    if made.accelerator.is_main_process:
        assert all(weight.isfinite().all() for weight in weights(made.model).values())


if __name__ == "__main__":
    main(*sys.argv[1:])
