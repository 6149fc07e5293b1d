"""Parts of a run, each with an objective and a learning rate of its own.

The paper trains through a bridge first, then by OPD, which calibrates the LM head that the bridge
leaves alone.
"""

import difflib
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from oprd.runs.limits import COUNT
from oprd.values import parse_list, refuse_renamed

# What a stage may set beside its steps.
STAGE_SETTINGS = (
    "learning_rate",
    "representation_weight",
    "scale",
    "bridge",
    "output_loss",
    "output_loss_kwargs",
    "output_weight",
    "state_loss",
    "state_loss_kwargs",
)


def parse_stages(stages: object) -> list[dict[str, Any]] | None:
    """Stages as given in Python or YAML, or as JSON on a command line.

    Raises:
        ValueError: they are not a list of mappings with `steps` and known settings.
    """
    stages = parse_list("stages", stages)
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

    def within(self, step: int) -> int:
        """How many steps of its stage a step has before it."""
        return step - (self.start(self.at(step)) if self.steps else 0)

    def total(self, max_steps: int) -> int:
        """`max_steps`, which stages give where it is not set, and which may end them sooner.

        Raises:
            ValueError: it is more than their steps.
        """
        if not self.steps:
            return max_steps
        total = self._ends[-1]
        if max_steps > total:
            raise ValueError(
                f"max_steps={max_steps} is more than the {total} steps of the stages: leave it out."
            )
        return total if max_steps == -1 else max_steps


def _check_stage(number: int, stage: object) -> None:
    if not isinstance(stage, dict):
        raise ValueError(f"stage {number} must be a mapping with its steps, got {stage!r}.")
    for name in stage:
        refuse_renamed(name)
        if name != "steps" and name not in STAGE_SETTINGS:
            close = difflib.get_close_matches(str(name), ("steps", *STAGE_SETTINGS), n=1)
            hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(STAGE_SETTINGS)}"
            raise ValueError(f"stage {number} cannot set {name!r}: {hint}")
    steps = stage.get("steps")
    if not COUNT.allows(steps):
        raise ValueError(f"stage {number} needs steps, {COUNT.words(steps)}, got {steps!r}.")
