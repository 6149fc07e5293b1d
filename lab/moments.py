"""A model of the lab at one step of its training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.models import CACHE, Recipe, Trained, obtain
from lab.scores import Scores, scores


@dataclass(frozen=True)
class Moment:
    """A model at one step of its training."""

    recipe: Recipe
    step: int

    @property
    def key(self) -> dict[str, Any]:
        """Everything that decides what the model is."""
        return {"recipe": self.recipe.key, "step": self.step}

    @property
    def task(self) -> str:
        """The module of the task that it was trained on."""
        return self.recipe.module

    @property
    def made_by(self) -> tuple[Trained, ...]:
        """What has to be trained for it."""
        return (self.recipe,)

    def path(self) -> Path:
        """The folder of the checkpoint; the model is trained first where it is not there."""
        return obtain(self.recipe) / f"checkpoint-{self.step}"

    def scores(self, samples: int) -> Scores:
        """Its figures on the reported problems, computed once."""
        file = CACHE / "scores" / self.recipe.folder.name / f"{self.step}, {samples} samples.json"
        return scores(self.path(), self.task, file, {"reported": samples})
