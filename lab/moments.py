"""A model of the lab at one step of its training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.models import CACHE, Recipe, Trained, obtain
from lab.scores import Scores, scores


@dataclass(frozen=True)
class Moment:
    """A model at one step of its training.

    Attributes:
        recipe: how it is trained.
        step: of that training.
        asked: a module of the lab, the task that it is judged by where that is not the recipe's.
    """

    recipe: Recipe
    step: int
    asked: str | None = None

    @property
    def key(self) -> dict[str, Any]:
        """Everything that decides what the model is."""
        key = {"recipe": self.recipe.key, "step": self.step}
        return key if self.asked is None else {**key, "asked": self.asked}

    @property
    def task(self) -> str:
        """The module of the task that it is judged by."""
        return self.recipe.module if self.asked is None else f"lab.{self.asked}"

    @property
    def made_by(self) -> tuple[Trained, ...]:
        """What has to be trained for it."""
        return (self.recipe,)

    def path(self) -> Path:
        """The folder of the checkpoint; the model is trained first where it is not there."""
        return obtain(self.recipe) / f"checkpoint-{self.step}"

    def scores(self, samples: int) -> Scores:
        """Its figures on the reported problems, computed once."""
        what = ", ".join(filter(None, (str(self.step), self.asked, f"{samples} samples.json")))
        file = CACHE / "scores" / self.recipe.folder.name / what
        return scores(self.path(), self.task, file, {"reported": samples})
