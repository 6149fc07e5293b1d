"""The learning rate of a run in stages."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from oprd.training.config import OPRDConfig


def stage_scheduler(optimizer: Optimizer, args: OPRDConfig) -> LambdaLR:
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


def _factor(steps: int, args: OPRDConfig) -> Callable[[int], float]:
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
