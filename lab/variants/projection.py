"""A bridge whose student side is trained along with the student."""

from typing import Any

from torch import nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from oprd import OPRDTrainer


def train_projection(trainer: OPRDTrainer) -> None:
    """Let the optimizer move P_S of a run's bridge, at the run's rate.

    Nothing then keeps a direction of the student's that the teacher's has no match for.
    """
    (space,) = trainer._teacher.spaces.values()
    bridge = space.bridge
    fitted = bridge.student_projection
    del bridge.student_projection
    bridge.student_projection = nn.Parameter(fitted.clone())
    trainer.create_optimizer()
    assert isinstance(trainer.optimizer, Optimizer)
    # Not decayed: zero is no place for it to go to.
    trainer.optimizer.add_param_group({"params": [bridge.student_projection], "weight_decay": 0.0})
    trainer.add_callback(_Cleared(bridge.student_projection))


class _Cleared(TrainerCallback):
    """Drops the gradient of a parameter that is not the model's, which the trainer does not."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self._parameter = parameter

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Begin anew."""
        self._parameter.grad = None
