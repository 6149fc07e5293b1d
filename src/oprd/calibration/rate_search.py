"""`learning_rate: auto`: the range test of a run, before its first step.

It writes the rollouts of the first step, updates the student on them dozens of times, and puts
everything back: weights, optimizer and random states. The run then begins as if nothing had been.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from oprd.calibration.rate import RateCurve, range_test
from oprd.runs.record import RATE_TEST

if TYPE_CHECKING:
    from oprd.settings.run import OPRDConfig
    from oprd.training.trainer import OPRDTrainer


def check_can_search(args: "OPRDConfig", accelerator: Accelerator) -> None:
    """Refuse, with a ValueError, to search where an update is not ours to make."""
    if args.finds_rate and getattr(accelerator.state, "deepspeed_plugin", None) is not None:
        raise ValueError(
            "learning_rate='auto' makes optimizer steps of its own, which DeepSpeed makes itself: "
            "find the rate in a run on one device, and set it."
        )


def recorded_rate(record: Mapping[str, Any]) -> float:
    """What a run found that goes on.

    Raises:
        ValueError: its record does not say it.
    """
    if RATE_TEST not in record:
        raise ValueError(
            "learning_rate='auto', and the record of the run that is to go on does not say which "
            "rate it found: set learning_rate to the one it had."
        )
    return float(record[RATE_TEST]["learning_rate"])


class RateSearch(TrainerCallback):
    """Finds the rate when a run begins, and sets it.

    Args:
        trainer: of the run.
    """

    def __init__(self, trainer: "OPRDTrainer") -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Search, unless the run goes on from a checkpoint, whose rate it keeps."""
        if state.global_step > 0:
            return
        trainer = self._trainer
        with trainer.trying(), _put_back(_inner(trainer.optimizer)):
            curve = self._curve()
        trainer.record({RATE_TEST: curve.facts()})
        if state.is_world_process_zero:
            # A progress bar may stand there.
            tqdm.write("\n".join(curve.lines()))
        _set_rate(trainer, curve.rate)

    def _curve(self) -> RateCurve:
        trainer = self._trainer
        batches = trainer.first_batch()
        model = cast(nn.Module, trainer.model_wrapped)
        optimizer = _inner(trainer.optimizer)

        def loss_with_gradient() -> float:
            total = torch.zeros((), device=trainer.accelerator.device)
            for inputs in batches:
                with trainer.compute_loss_context_manager():
                    loss = cast(Tensor, trainer.compute_loss(model, inputs))
                trainer.accelerator.backward(loss)
                total += loss.detach()
            # Each is its process's share times the number of processes.
            return cast(Tensor, trainer.accelerator.reduce(total, "mean")).item()

        def update(rate: float) -> None:
            if trainer.args.max_grad_norm:
                norm = trainer.args.max_grad_norm
                trainer.accelerator.clip_grad_norm_(model.parameters(), norm)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()

        objectives = trainer.args.objectives()
        changing = len(objectives) > 1 or any(of.weights.change for of in objectives)
        return range_test(
            loss_with_gradient, update, trainer.args.rollouts_per_step, changing=changing
        )


@contextmanager
def _put_back(optimizer: Optimizer) -> Iterator[None]:
    """Leave weights, optimizer and random states as they were."""
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    weights = [parameter.detach().clone() for parameter in trained]
    rates = [group["lr"] for group in optimizer.param_groups]
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            yield
    finally:
        with torch.no_grad():
            for parameter, weight in zip(trained, weights, strict=True):
                parameter.copy_(weight)
        optimizer.zero_grad()
        optimizer.state.clear()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        random.setstate(states[0])
        np.random.set_state(states[1])


def _set_rate(trainer: "OPRDTrainer", rate: float) -> None:
    """Give a run whose optimizer and schedule are there another rate."""
    schedule = getattr(trainer.lr_scheduler, "scheduler", trainer.lr_scheduler)
    assert isinstance(schedule, LambdaLR)
    groups = _inner(trainer.optimizer).param_groups
    for group, factor in zip(groups, schedule.lr_lambdas, strict=True):
        group["initial_lr"], group["lr"] = rate, rate * factor(0)
    schedule.base_lrs = [rate] * len(groups)
    schedule._last_lr = [group["lr"] for group in groups]
    trainer.args.learning_rate = rate


def _inner(optimizer: Any) -> Optimizer:
    """Accelerate's wrapper steps only where gradients are complete, which is here for us to say."""
    return cast(Optimizer, getattr(optimizer, "optimizer", optimizer))
