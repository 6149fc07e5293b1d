"""What the student is trained towards, stage by stage, and through which bridges."""

from collections.abc import Mapping
from typing import Any, cast

from accelerate.logging import get_logger
from torch.optim import Optimizer
from transformers import PreTrainedModel

from oprd.calibration.models import FitModels
from oprd.core.bridge import Bridge
from oprd.core.layers import LayerPair
from oprd.models.matching import gradient_reaches_all, pair_models
from oprd.training.bridges import bridge_facts, check_can_fit, obtain_spaces
from oprd.training.plan import stage_scheduler
from oprd.training.rollouts import RolloutTrainer
from oprd.training.update import Update

# States of models of one origin agree far better, those of others hardly at all (the paper's pairs
# stand at 0.075 or less).
RELATED_COSINE = 0.25

logger = get_logger(__name__)


class StagedTrainer(RolloutTrainer):
    """The update of each stage, and the learning rate that goes with them.

    A subclass calls `_bind_objectives`, then `_enter_bridges` once the teacher has its place.
    """

    pairs: tuple[LayerPair, ...]
    _seen_first_batch = False

    def _bind_objectives(self, teacher: PreTrainedModel, *, same_meaning: bool) -> None:
        """Pair the layers, and check that the settings of every stage fit the models."""
        self.pairs = pair_models(self.student, teacher, self.args.layer_spec)
        self._schedule = self.args.schedule
        objectives = self.args.objectives()
        self._updates = [
            Update.bind(
                settings,
                self.pairs,
                self.student,
                teacher,
                self.accelerator,
                same_meaning=same_meaning,
            )
            for settings in objectives
        ]
        if self.args.ddp_find_unused_parameters is None:
            output = all(settings.output is not None for settings in objectives)
            self.args.ddp_find_unused_parameters = not gradient_reaches_all(
                self.student, self.pairs, output=output
            )

    def _enter_bridges(
        self, bridges: Mapping[str, Bridge | None], models: FitModels
    ) -> dict[str, Any]:
        """Check the bridges of all stages, or fit them; returns what the run's record says."""
        check_can_fit(bridges, self.accelerator)
        spaces = obtain_spaces(
            bridges, models, self.pairs, self.args, self.train_dataset, self.accelerator.device
        )
        for update in self._updates:
            update.enter(spaces)
        return bridge_facts(spaces)

    @property
    def _stage(self) -> int:
        """The index of the stage of the next update, or in evaluation of the last one."""
        step = self.state.global_step
        return self._schedule.at(step if self.student.training else max(step - 1, 0))

    @property
    def _update(self) -> Update:
        return self._updates[self._stage]

    def _look_at_first_batch(self, metrics: Mapping[str, float]) -> None:
        """Point to a bridge where states are compared without one and have little in common."""
        settings = self.args.objectives()[self._stage]
        compared = settings.bridge is None and settings.representation_weight > 0
        if compared and not self._seen_first_batch:
            _warn_if_unrelated(metrics.get("rep_cosine"))
            self._seen_first_batch = True

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> Any:
        """Transformers' own, once in each stage of a run that has stages."""
        if self.args.stages and self.lr_scheduler is None:
            stepped = cast(Optimizer, optimizer or self.optimizer)
            self.lr_scheduler = stage_scheduler(stepped, self.args)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)


def _warn_if_unrelated(cosine: float | None) -> None:
    """Point to a bridge where the states of the first batch have little in common.

    Args:
        cosine: mean over layers and positions; None where it was not measured.
    """
    if cosine is not None and cosine < RELATED_COSINE:
        logger.warning(
            f"The models' states have a cosine of {cosine:.3f} on the first batch that compares "
            "them: they seem to be "
            "of different origin, and pulling one to the other needs a bridge. Fit one with "
            "`oprd bridge fit --student … --teacher … --prompts …` and set bridge to its file, or "
            "set bridge='fit'."
        )
