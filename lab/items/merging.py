"""An item that makes one student of several specialists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab import both
from lab.comparison import Comparison
from lab.items.compared import Compared
from lab.items.measurements import NEAR, merged
from lab.methods import MERGED_PURE
from lab.models import CACHE
from lab.pairs import PAIRS
from lab.results import Estimate
from lab.scores import scores
from lab.specialists import Specialists

AVERAGED = "weights averaged"


@dataclass(frozen=True)
class Merging(Compared):
    """A comparison on a pair of specialists, whose accuracies are reported by task."""

    def besides(self, comparison: Comparison) -> dict[str, Any]:
        """The accuracy by task of the students, the specialists and the mean of their weights."""
        teachers = PAIRS[comparison.pair].teacher
        assert isinstance(teachers, Specialists)
        count = comparison.best(comparison.methods[0])[0].samples["reported"]
        alone = {
            f"the specialist of {name}": [by_task(figures["problems"])]
            for name, figures in teachers.alone(count).items()
        }
        averaged = _averaged(teachers, count)
        students = {
            method: [
                by_task(run.scores()["reported"]["problems"]) for run in comparison.best(method)
            ]
            for method in comparison.methods
        }
        return {"by_task": {**alone, AVERAGED: [by_task(averaged)], **students}}

    def table(self, found: Mapping[str, Any]) -> list[str]:
        """The findings as lines of Markdown."""
        lines = [f"| Avg | {' | '.join(both.TASKS)} |", "|---" * (len(both.TASKS) + 1) + "|"]
        for name, of in found["by_task"].items():
            cells = [Estimate.of(one[task] for one in of).percent() for task in both.TASKS]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        return [*super().table(found), "", *lines]

    def verdicts(self, found: Mapping[str, Any]) -> dict[str, bool]:
        """Those of the comparison, and whether one student is as good as both specialists."""
        near, _ = merged(found)
        claim = f"{MERGED_PURE} within {NEAR} points of each specialist"
        return {**super().verdicts(found), claim: near}


def by_task(problems: Sequence[float]) -> dict[str, float]:
    """Mean accuracy by task, of those on the reported problems of `lab.both`."""
    asked, values = np.array(both.reported()), np.array(problems)
    return {task: float(values[asked == task].mean()) for task in both.TASKS}


def _averaged(teachers: Specialists, samples: int) -> list[float]:
    """The accuracy on each problem of a model whose weights are the mean of the specialists'."""
    models = list(teachers.paths().values())
    name = " and ".join(f"{path.parent.name}, {path.name}" for path in models)
    folder = CACHE / "models" / f"mean of {name}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "finished").exists():
            _write_mean(models, folder)
    file = CACHE / "scores" / folder.name / f"{samples} samples.json"
    return scores(folder, both.__name__, file, {"reported": samples})["reported"]["problems"]


def _write_mean(models: Sequence[Path], folder: Path) -> None:
    model, *others = (AutoModelForCausalLM.from_pretrained(path) for path in models)
    with torch.no_grad():
        for weights, *of_others in zip(
            model.parameters(), *(other.parameters() for other in others), strict=True
        ):
            weights.copy_(torch.stack([weights, *of_others]).mean(0))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(models[0]).save_pretrained(folder)
    (folder / "finished").touch()
