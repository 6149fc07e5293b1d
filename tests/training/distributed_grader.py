"""A run with a grader of one's own; called in several processes by test_task_evaluation."""

from pathlib import Path

from tests import tiny
from tests.training.runs import trainer


def main(folder: str, task: str) -> None:
    made = trainer(
        Path(folder),
        student=tiny.model(seed=1).double(),
        teacher=tiny.model(seed=2).double(),
        per_device_train_batch_size=2,
        # Two rounds of drawing, so that some process may be ahead when the main one stops.
        per_device_eval_batch_size=2,
        eval_tasks=task,
        eval_samples=2,
        eval_max_new_tokens=4,
    )
    made.train()
