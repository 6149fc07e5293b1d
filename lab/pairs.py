"""Who learns from whom in the lab."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from lab.models import CACHE, Recipe, obtain
from lab.pretrained import Pretrained
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

    def path(self) -> Path:
        """The folder of the checkpoint; the model is trained first where it is not there."""
        return obtain(self.recipe) / f"checkpoint-{self.step}"

    def scores(self, samples: int) -> Scores:
        """Its figures on the reported problems, computed once."""
        file = CACHE / "scores" / self.recipe.folder.name / f"{self.step}, {samples} samples.json"
        return scores(self.path(), self.task, file, {"reported": samples})


@dataclass(frozen=True)
class Pair:
    """A student and its teacher on one task.

    Attributes:
        student: what learns.
        teacher: of whom.
        step_seconds: what a step of a run takes on one thread with its share of evaluations, about.
        keeps_students: whether the weights of trained students stay when they are evaluated.
    """

    student: Moment | Pretrained
    teacher: Moment | Pretrained
    step_seconds: float = 0.8
    keeps_students: bool = True

    @property
    def task(self) -> str:
        """The module of the task that the teacher teaches."""
        return self.teacher.task

    @property
    def task_module(self) -> ModuleType:
        """Its problems and grader."""
        return importlib.import_module(self.task)

    @property
    def key(self) -> dict[str, Any]:
        """What the models are made of; of a pretrained one its role."""
        return {"student": self.student.key, "teacher": self.teacher.key}


SUMS, SORTING = Recipe("sums"), Recipe("sorting")
VOCABULARY = 3072
WORDS = Recipe("words", vocabulary=VOCABULARY)
PAIRS = {
    "sums": Pair(Moment(SUMS, 250), Moment(SUMS, 1500)),
    "sorting": Pair(Moment(SORTING, 200), Moment(SORTING, 1500), step_seconds=0.5),
    # Three layers of width 96, its own initialisation: only a bridge or the output connects it.
    "sums, other shape": Pair(
        Moment(Recipe("sums", layers=3, width=96, steps=1000, seed=1, until=350), 350),
        Moment(SUMS, 1500),
    ),
    # The same shapes over a vocabulary of byte pairs.
    "words, other shape": Pair(
        Moment(
            Recipe(
                "words", vocabulary=VOCABULARY, layers=3, width=96, steps=1500, seed=1, until=600
            ),
            600,
        ),
        Moment(WORDS, 1500),
    ),
    # The teacher's shape from another initialisation: equal widths, and no common coordinates.
    "sums, unrelated": Pair(
        Moment(Recipe("sums", steps=1000, seed=1, until=300), 300), Moment(SUMS, 1500)
    ),
    # The student's tokens are characters, the teacher's byte pairs of numbers.
    "sums, other tokens": Pair(
        Moment(Recipe("sums", layers=3, width=96, steps=1000, seed=1, until=350), 350),
        Moment(Recipe("sums", vocabulary=128), 1500),
    ),
    "additions": Pair(
        Pretrained("student"), Pretrained("teacher"), step_seconds=20, keeps_students=False
    ),
}
