"""A step with evaluations before and after; run by test_task_evaluation."""

from pathlib import Path

from tests import tiny
from tests.training.runs import trainer


def main(folder: str) -> None:
    made = trainer(
        Path(folder),
        # In double precision, so that batches of another shape draw the same tokens.
        student=tiny.model(seed=1).double(),
        teacher=tiny.model(seed=2).double(),
        per_device_train_batch_size=2,
        # Five problems twice in rounds of three or six: the last process is left without work.
        per_device_eval_batch_size=3,
        eval_tasks="additions",
        eval_limit=5,
        eval_samples=2,
        keep_best="additions/avg@2",
        # What is drawn must not depend on what was learned.
        learning_rate=1e-30,
    )
    made.train()
