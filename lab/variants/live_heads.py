"""The student's LM head as it is along a run, beside that which a bridge was fitted with.

Letters: N rows, S student width, R rank.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lab.readings import write_rollouts
from oprd import OPRDTrainer
from oprd.calibration.bridge.heads import both_heads
from oprd.core.bridge import Bridge
from oprd.core.bridge.heads import HeadsMetric, HeadsSolution, HeadStatistics, solve_heads
from oprd.core.capture import num_layers
from oprd.models.batch import MicroBatch
from oprd.models.generate import evaluation_mode
from oprd.models.prompt import Prompt
from oprd.models.reading import read

# By the name under which runs log them.
FITTED, LIVE, COSINE = "heads/fitted", "heads/live", "heads/gradient_cosine"


class LiveHeads(TrainerCallback):
    """Logs D² through both heads, and the cosine of its gradients; see `oprd.core.bridge.heads`.

    Args:
        trainer: of a run whose only pair reads both LM heads.
        prompts: held out; the student writes to them at each measurement.
        limit: most tokens of a response.
        every: steps between measurements.
        refresh: whether the run goes on with the head as it is.

    Raises:
        ValueError: the run has another bridge.
    """

    def __init__(
        self,
        trainer: OPRDTrainer,
        prompts: Sequence[Prompt],
        limit: int,
        every: int,
        *,
        refresh: bool,
    ) -> None:
        (space,) = trainer._teacher.spaces.values()
        if space.bridge.basis != "heads":
            raise ValueError(f"the run's bridge has the basis {space.bridge.basis!r}, not 'heads'.")
        self._trainer, self._bridge = trainer, space.bridge
        self._prompts, self._limit, self._every = prompts, limit, every
        self._refresh = refresh
        self._first = tuple(side.clone() for side in _sides(space.bridge))

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Measure, where it is time, and go on with what is found where that is wanted."""
        if state.global_step % self._every:
            return
        student, teacher = self._trainer.student, self._trainer.teacher_model
        tokenizer = self._trainer.tokenizer
        batch = write_rollouts(student, tokenizer, self._prompts, self._limit, seed=0)
        rows = last_states(student, batch), last_states(teacher, batch)
        live = _sides_of(self._solution(rows[1]))
        fitted, found = (_distances(*rows, *sides) for sides in (self._first, live))
        metrics = {
            FITTED: float(fitted[0]),
            LIVE: float(found[0]),
            COSINE: float(cosine_similarity(fitted[1], found[1], dim=1).mean()),
        }
        for name, value in metrics.items():
            self._trainer._metrics["train"][name].append(value)
        if self._refresh:
            for kept, new in zip(_sides(self._bridge), live, strict=True):
                kept.copy_(new)

    def _solution(self, rows: Tensor) -> HeadsSolution:
        heads = both_heads(self._trainer.student, self._trainer.teacher_model)
        metric = cast(HeadsMetric, self._bridge.heads_metric)
        statistics = HeadStatistics(heads, metric)
        statistics.update(rows)
        return solve_heads(statistics.moments())


def last_states(model: Any, batch: MicroBatch) -> Tensor:
    """[N, D] states of the last layer that predict response tokens."""
    last = num_layers(model)
    with torch.no_grad(), evaluation_mode(model):
        return read(model, batch.view, [last]).states[last]


def _sides(bridge: Bridge) -> tuple[Tensor, Tensor, Tensor]:
    """P_S, µ_S and P_T of the only pair, as they are kept."""
    return bridge.student_projection, bridge.student_mean[0], bridge.teacher_projection


def _sides_of(solution: HeadsSolution) -> tuple[Tensor, Tensor, Tensor]:
    return solution.student_projection, solution.student_mean, solution.teacher_projection


def _distances(
    student: Tensor, teacher: Tensor, ours: Tensor, mean: Tensor, theirs: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean of D² without c, and [N, S] its gradient at each row of the student's, over two."""
    rows = (
        student.double() - mean.double()
    ) @ ours.double().T - teacher.double() @ theirs.double().T
    return rows.square().sum(dim=1).mean(), rows @ ours.double()
