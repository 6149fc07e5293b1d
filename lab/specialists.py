"""Several teachers, each of one of the tasks that their student is to learn."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from lab import both
from lab.models import CACHE, Trained
from lab.moments import Moment
from lab.scores import Scores, scores


@dataclass(frozen=True)
class Specialists:
    """A model for each task of `lab.both`.

    Attributes:
        models: by the name of its task.
    """

    models: Mapping[str, Moment]

    def __hash__(self) -> int:
        """Of its models."""
        return hash(tuple(self.models.items()))

    @property
    def task(self) -> str:
        """The module of the tasks together."""
        return both.__name__

    @property
    def key(self) -> dict[str, Any]:
        """Everything that decides what the models are."""
        return {name: model.key for name, model in self.models.items()}

    @property
    def made_by(self) -> tuple[Trained, ...]:
        """What has to be trained for them."""
        return tuple(of for model in self.models.values() for of in model.made_by)

    def path(self) -> Path:
        """What one teacher has, and several have not.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{' and '.join(self.models)} have teachers of their own: see paths.")

    def paths(self) -> dict[str, Path]:
        """The models' folders by name; what is not there is trained first."""
        return {name: model.path() for name, model in self.models.items()}

    def alone(self, samples: int) -> dict[str, dict[str, Any]]:
        """The figures of each on the reported problems of both tasks, computed once."""
        return {
            name: self._scores(model, samples)["reported"] for name, model in self.models.items()
        }

    def scores(self, samples: int) -> Scores:
        """The figures of whoever is asked about its own task, on the reported problems."""
        alone = self.alone(samples)
        problems = [alone[name]["problems"][n] for n, name in enumerate(both.reported())]
        means = {
            figure: fmean(of[figure] for of in alone.values())
            for figure in ("distinct_4", "length")
        }
        best = fmean(problem > 0 for problem in problems)
        figures = {"accuracy": fmean(problems), "best": best, **means, "problems": problems}
        return {"reported": figures}

    @staticmethod
    def _scores(model: Moment, samples: int) -> Scores:
        name = f"{model.recipe.folder.name}-{model.step}, both, {samples} samples.json"
        return scores(model.path(), both.__name__, CACHE / "scores" / name, {"reported": samples})
