"""What a bridge carries by its rank."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from datasets import Dataset

from lab.items.item import Item
from lab.methods import RANK
from lab.pairs import PAIRS, Pair
from lab.results import result_file, short, write
from lab.runs import PROBLEMS_SEED
from oprd.calibration.bridge.fit import fit_bridge
from oprd.calibration.bridge.settings import FitSettings
from oprd.calibration.models import FitModels
from oprd.calibration.rollouts import Rollout
from oprd.models.sampling import Sampling
from oprd.reports.bridge import plot_bridge

BATCH_SIZE = 64


@dataclass(frozen=True)
class Ranks(Item):
    """The report of a bridge that is fitted before any training.

    Attributes:
        pair: a name of `lab.pairs.PAIRS`.
        rollouts: of the student, fitted on and held out; a quick fit has a quarter of them.
    """

    pair: str
    rollouts: int
    report_minutes: ClassVar[float] = 3

    def table(self, found: Mapping[str, Any]) -> list[str]:
        """The curve by rank as lines of Markdown."""
        return table(found)

    def verdicts(self, found: Mapping[str, Any]) -> dict[str, bool]:
        """What quick and whole measurements should agree on."""
        cosines = {at["rank"]: at["cosine"] for at in found["curve"]}
        return {"the cosine is higher at rank 8 than at rank 1": cosines[8] > cosines[1]}

    def report(self, quick: bool) -> None:
        """Write the fit's report and picture."""
        count = self.rollouts // 4 if quick else self.rollouts
        found = fit_report(PAIRS[self.pair], count)
        write(self.name, {**found, "layers": [_spectra(layer) for layer in found["layers"]]}, quick)
        plot_bridge(found, result_file(f"{self.name}.png", quick))


def fit_report(pair: Pair, rollouts: int) -> dict[str, Any]:
    """The report of a bridge between a pair, on all positions of so many rollouts."""
    models, written = models_and_rollouts(pair, rollouts)
    settings = FitSettings(rank=RANK, positions="all", batch_size=BATCH_SIZE)
    return fit_bridge(models.student, models.teacher, written, settings, progress=False).report


def models_and_rollouts(pair: Pair, rollouts: int) -> tuple[FitModels, Sequence[Rollout]]:
    """A pair's models, and what its student writes for the first prompts that its runs train on."""
    task = pair.task_module
    problems = task.examples("train", rollouts, seed=PROBLEMS_SEED)
    models = FitModels.load(str(pair.student.path()), str(pair.teacher.path()), "float32")
    with TemporaryDirectory() as folder:
        written, _ = models.write_rollouts(
            Dataset.from_list([{"prompt": prompt} for prompt, _ in problems]),
            Sampling(1, temperature=1.0, top_p=1.0, max_new_tokens=task.LONGEST_RESPONSE, seed=0),
            Path(folder),
            batch_size=BATCH_SIZE,
            progress=False,
        )
    return models, written


def _spectra(layer: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's eigenvalues and held-out R², which E(r) follows from at every rank."""
    left_out = ("rank_error", "eigenvalues", "component_r_squared")
    return {
        **{name: value for name, value in layer.items() if name not in left_out},
        "eigenvalues": short(layer["eigenvalues"]),
        "component_r_squared": short(layer["component_r_squared"]["held_out"]),
    }


def table(fit: Mapping[str, Any]) -> list[str]:
    """Means over layers on held-out rows, as lines of a Markdown table."""
    head = [
        f"{fit['rows']['fit']:,} rows to fit on, {fit['rows']['held_out']:,} held out; the advised "
        f"rank is {fit['advice']['rank']}",
        "",
        "| rank | cosine | R² | E(r) / Σλ |",
        "|---|---|---|---|",
    ]
    return head + [
        f"| {at['rank']} | {at['cosine']:.3f} | {at['r_squared']:.3f} | {at['rank_error']:.3f} |"
        for at in fit["curve"]
    ]
