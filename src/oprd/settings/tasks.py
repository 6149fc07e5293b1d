"""Settings of the evaluation on tasks while a student trains."""

import json
import shlex
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import cast

from trl.trainer.distillation_config import DistillationConfig

from oprd.models.trial import check_metric
from oprd.runs.record import BEST
from oprd.values import parse_names


@dataclass
class TaskEvaluationConfig(DistillationConfig):
    """On what the student is evaluated before the first step, every `eval_steps` and at the end.

    Args:
        eval_tasks: tasks as `oprd eval` takes them, comma-separated or as a list.
        eval_samples: responses per problem.
        eval_temperature: of these responses; 0 is greedy, with one sample.
        eval_max_new_tokens: their length limit, `max_completion_length` by default.
        eval_limit: only the first so many problems of a task.
        false_progress_window: measurements of a task's figure, or of the reverse KL of
            `diagnostics_steps`, over which it is warned of where it gets worse while the states'
            cosine or the loss gets better.
        stop_on_false_progress: end the run there; the student of `keep_best` is the one to take.
        keep_best: a figure of a task, such as "aime24/avg@16": the student that reached the highest
            is kept in the folder `best` of the run. As the highest of several evaluations the
            figure is too high by chance: `fresh_evaluation` is the command of one that is not.
        eval_patience: end the run after so many evaluations in a row in which `keep_best`'s figure
            was not above its highest; by default never. The student of `best` is the one to take.

    Raises:
        ValueError: a value is illegal; the message names it.
    """

    eval_tasks: str | None = field(
        default=None,
        metadata={
            "help": "Tasks, comma-separated, on which the student is evaluated before the first "
            "step, every eval_steps and after the last step."
        },
    )
    eval_samples: int = field(default=4, metadata={"help": "Responses per problem of a task."})
    eval_temperature: float = field(
        default=0.7, metadata={"help": "Of these responses; 0 is greedy, with one sample."}
    )
    eval_max_new_tokens: int | None = field(
        default=None,
        metadata={"help": "Length limit of these responses, by default max_completion_length."},
    )
    eval_limit: int | None = field(
        default=None, metadata={"help": "Only the first so many problems of a task."}
    )
    false_progress_window: int = field(
        default=8,
        metadata={
            "help": "Measurements, an even number, over which a student that gets worse while its "
            "states or its loss get better is warned of."
        },
    )
    stop_on_false_progress: bool = field(
        default=False, metadata={"help": "End the run there; needs keep_best."}
    )
    keep_best: str | None = field(
        default=None,
        metadata={
            "help": 'A figure such as "aime24/avg@4": the best student by it is kept in "best". '
            "As the highest of several evaluations it is too high by chance."
        },
    )

    eval_patience: int | None = field(
        default=None,
        metadata={
            "help": "End the run after so many evaluations in a row without a higher keep_best."
        },
    )

    def __post_init__(self) -> None:
        """Check what can be checked before the tasks are loaded."""
        if self.eval_temperature == 0 and self.eval_samples > 1:
            raise ValueError(
                f"eval_temperature=0 gives {self.eval_samples} identical responses: "
                "set eval_samples=1."
            )
        if self.keep_best is not None and not self.eval_task_names:
            raise ValueError(f"keep_best={self.keep_best!r} needs eval_tasks.")
        if self.eval_patience is not None and self.keep_best is None:
            raise ValueError(
                f"eval_patience={self.eval_patience} waits for a figure to rise: set keep_best, "
                "such as aime24/avg@4."
            )
        if self.false_progress_window % 2:
            raise ValueError(
                f"false_progress_window={self.false_progress_window} must be even: its newer half "
                "is compared with its older."
            )
        if self.stop_on_false_progress and self.keep_best is None:
            raise ValueError(
                "stop_on_false_progress ends a run whose best student is kept: set keep_best, such "
                "as aime24/avg@4."
            )
        check_metric(self.metric_for_best_model, self.eval_task_names)
        super().__post_init__()

    @property
    def fresh_evaluation(self) -> str:
        """The command that evaluates the best student on samples that had no part in its choice."""
        options = {
            "model": Path(cast(str, self.output_dir)) / BEST,
            "tasks": ",".join(self.eval_task_names),
            "samples": self.eval_samples,
            "temperature": self.eval_temperature,
            "max_new_tokens": self.eval_max_new_tokens or self.max_completion_length,
            "limit": self.eval_limit,
            "chat_template_kwargs": json.dumps(given)
            if (given := self.chat_template_kwargs)
            else None,
            "seed": self.seed + 1,
        }
        flags = [(f"--{name}", str(value)) for name, value in options.items() if value is not None]
        return shlex.join(["oprd", "eval", *chain.from_iterable(flags)])

    @property
    def eval_task_names(self) -> list[str]:
        """`eval_tasks` one by one."""
        return parse_names(self.eval_tasks or "")
