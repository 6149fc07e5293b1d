"""Parts of a run, each with an objective and a learning rate of its own.

The paper trains through a bridge first, then by OPD, which calibrates the LM head that the bridge
leaves alone.
"""

import difflib
import json
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

if TYPE_CHECKING:
    from oprd.training.config import OPRDConfig

# What a stage may set beside its steps.
STAGE_SETTINGS = (
    "learning_rate",
    "representation_weight",
    "normalize",
    "bridge",
    "output_loss",
    "output_weight",
    "loss_top_k",
    "loss_top_k_support",
    "loss_top_k_renormalize",
    "jsd_beta",
)


def parse_stages(stages: object) -> list[dict[str, Any]] | None:
    """Stages as given in Python or YAML, or as JSON on a command line.

    Raises:
        ValueError: they are not a list of mappings with `steps` and known settings.
    """
    if isinstance(stages, str):
        try:
            stages = json.loads(stages)
        except ValueError as error:
            raise ValueError(f"stages must be a JSON list of mappings: {error}.") from error
    if stages is None:
        return None
    if not isinstance(stages, list) or not stages:
        raise ValueError(f"stages must be a list of mappings, got {stages!r}.")
    for number, stage in enumerate(stages, 1):
        _check_stage(number, stage)
    return [dict(stage) for stage in stages]


class Schedule:
    """Which stage a step belongs to.

    Args:
        steps: of each stage; none for a run without stages, which is one stage without end.
    """

    def __init__(self, steps: Sequence[int]) -> None:
        self.steps = tuple(steps)
        self._ends = tuple(accumulate(self.steps))

    def at(self, step: int) -> int:
        """The index of the stage of a step, both from 0; after the last step the last stage."""
        return min(sum(step >= end for end in self._ends), max(len(self.steps) - 1, 0))

    def start(self, stage: int) -> int:
        """The first step of a stage."""
        return self._ends[stage] - self.steps[stage]


def stage_scheduler(optimizer: Optimizer, args: "OPRDConfig") -> LambdaLR:
    """A learning rate that warms up and runs through its schedule once in each stage.

    Args:
        optimizer: with the run's own learning rate.
        args: the run's settings.

    Raises:
        ValueError: the kind of schedule depends on more than the step.
    """
    schedule = args.schedule
    stages = args.objectives()
    shares = [stage.learning_rate / args.learning_rate for stage in stages]
    factors = [_factor(*pair) for pair in zip(schedule.steps, stages, strict=True)]

    def factor(step: int) -> float:
        stage = schedule.at(step)
        return shares[stage] * factors[stage](step - schedule.start(stage))

    return LambdaLR(optimizer, factor)


def _factor(steps: int, args: "OPRDConfig") -> Callable[[int], float]:
    """The schedule of a stage of so many steps, as a factor by step."""
    scheduler = get_scheduler(
        args.lr_scheduler_type,
        # Schedules with a floor in absolute terms divide by the optimizer's rate.
        torch.optim.SGD([torch.zeros(1)], lr=args.learning_rate),
        args.get_warmup_steps(steps),
        steps,
        scheduler_specific_kwargs=cast(dict[str, Any] | None, args.lr_scheduler_kwargs),
    )
    if not isinstance(scheduler, LambdaLR):
        raise ValueError(
            f"lr_scheduler_type={args.lr_scheduler_type!r} does not follow from the step alone, as "
            "that of a run in stages must: choose another, such as cosine or linear."
        )
    return cast(Callable[[int], float], scheduler.lr_lambdas[0])


def _check_stage(number: int, stage: object) -> None:
    if not isinstance(stage, dict):
        raise ValueError(f"stage {number} must be a mapping with its steps, got {stage!r}.")
    for name in stage:
        if name != "steps" and name not in STAGE_SETTINGS:
            close = difflib.get_close_matches(str(name), ("steps", *STAGE_SETTINGS), n=1)
            hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(STAGE_SETTINGS)}"
            raise ValueError(f"stage {number} cannot set {name!r}: {hint}")
    steps = stage.get("steps")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(
            f"stage {number} needs steps, a whole number of at least 1, got {steps!r}."
        )
