"""Which update each step of a run makes, and at what rate."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, get_scheduler

from oprd.models.aligned import Aligned
from oprd.models.reader import Context
from oprd.settings.run import OPRDConfig
from oprd.training.update import Update


class Plan:
    """The stages of a run; one without stages is a single stage without end.

    Args:
        args: of the run.
        updates: one for each stage.
    """

    def __init__(self, args: OPRDConfig, updates: Sequence[Update]) -> None:
        self.settings, self.updates = args.objectives(), tuple(updates)
        self._args, self._schedule = args, args.schedule
        # Before a rate is found, which a stage cannot have of its own.
        self._shares = [stage.rate / args.rate for stage in self.settings]

    @classmethod
    def of(
        cls,
        args: OPRDConfig,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        *,
        same_meaning: bool,
        ends: Sequence[int] = (),
        aligned: Aligned | None = None,
        autocast: Context = nullcontext,
    ) -> "Plan":
        """Check that the settings of every stage fit the models; see `Update.of`."""
        drifts = args.measures_drift
        updates = [
            Update.of(
                settings,
                student,
                teacher,
                same_meaning=same_meaning,
                ends=ends,
                aligned=aligned,
                drifts=drifts,
                autocast=autocast,
            )
            for settings in args.objectives()
        ]
        return cls(args, updates)

    @property
    def scaled_by_layer(self) -> set[str]:
        """The bridges, "" for none, through which errors are relative to the teacher's states."""
        return {
            stage.bridge or ""
            for stage in self.settings
            if stage.scale == "layer" and stage.weights.representation.ever
        }

    def stage(self, step: int) -> int:
        """The index of the stage of a step, both from 0."""
        return self._schedule.at(step)

    def update(self, step: int) -> Update:
        """What a step does with its micro-batches."""
        return self.updates[self.stage(step)]

    def within(self, step: int) -> int:
        """A step counted within its stage, both from 0."""
        return self._schedule.within(step)

    def compares_rows(self, step: int) -> bool:
        """Whether a step pulls the student's states to the teacher's very own."""
        settings = self.settings[self.stage(step)]
        return settings.row_by_row and settings.weights.representation.at(self.within(step)) > 0

    def metrics(self, step: int) -> dict[str, float]:
        """What is logged of a step's place: its stage, from 1, and factors of terms that change."""
        stage = self.stage(step)
        weights = self.settings[stage].weights
        found = {"stage": stage + 1.0} if self._schedule.steps else {}
        if weights.change:
            at = self.within(step)
            found |= {f"weight/{n}": w.at(at) for n, w in weights._asdict().items()}
        return found

    def scheduler(self, optimizer: Optimizer, steps: int) -> LambdaLR | None:
        """A learning rate that warms up and runs through its schedule once in each stage.

        Args:
            optimizer: with the run's own learning rate.
            steps: of a run without stages.

        Returns:
            None where the kind of schedule depends on more than the step, in a run without stages.

        Raises:
            ValueError: it does, in a run with stages.
        """
        schedule, stages = self._schedule, self.settings
        lengths = schedule.steps or (steps,)
        factors = [_factor(*pair) for pair in zip(lengths, stages, strict=True)]
        known = [factor for factor in factors if factor is not None]
        if len(known) < len(factors):
            if not schedule.steps:
                return None
            raise ValueError(
                f"lr_scheduler_type={self._args.lr_scheduler_type!r} does not follow from the step "
                "alone, as that of a run in stages must: choose another, such as cosine or linear."
            )
        starts = [schedule.start(stage) if schedule.steps else 0 for stage in range(len(known))]

        def factor(step: int) -> float:
            stage = schedule.at(step)
            return self._shares[stage] * known[stage](step - starts[stage])

        return LambdaLR(optimizer, factor)


def _factor(steps: int, args: OPRDConfig) -> Callable[[int], float] | None:
    """The schedule of a stage of so many steps, as a factor by step, None where it is none.

    Transformers' warm-up begins at zero, so that the first step would train nothing: here the rate
    rises from 1/(W + 1) to W/(W + 1) of its peak in W steps.
    """
    warmup = args.get_warmup_steps(steps)
    scheduler = get_scheduler(
        args.lr_scheduler_type,
        # Schedules with a floor in absolute terms divide by the optimizer's rate.
        torch.optim.SGD([torch.zeros(1)], lr=args.rate),
        warmup,
        steps,
        scheduler_specific_kwargs=cast(dict[str, Any] | None, args.lr_scheduler_kwargs),
    )
    if not isinstance(scheduler, LambdaLR):
        return None
    after = cast(Callable[[int], float], scheduler.lr_lambdas[0])
    if after(0) > 0:
        return after
    return lambda step: (step + 1) / (warmup + 1) if step < warmup else after(step)
