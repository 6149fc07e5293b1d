"""What an update costs, from `oprd bench`."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
import typer

from lab.items.item import Item
from lab.models import CACHE
from lab.pairs import PAIRS
from lab.results import write
from lab.scores import write_whole
from lab.threads import threads
from oprd.analysis.cost import measure_cost
from oprd.analysis.setup import Setup
from oprd.reports.cost import MIB
from oprd.runs.record import versions

OPD = ("sampled", "topk", "naive_sampled", "naive_topk", "trl")
# Of a vocabulary of 15 tokens there is no top-16.
LAB_OPD = ("sampled", "reverse_kl", "trl")

# Ratios of seconds that are nearer to 1 settle nothing.
MARGIN = 1.1


@dataclass(frozen=True)
class Case:
    """Models and rollouts that are measured.

    Attributes:
        setup: settings of `oprd.analysis.setup.Setup`.
        objectives: output-space ones, beside the floor and OPRD.
        rounds: how often each update is timed.
        pair: of the lab, for models in place of a shape.
    """

    setup: Mapping[str, Any]
    objectives: tuple[str, ...] = OPD
    rounds: int = 5
    pair: str | None = None

    def measured(self, name: str) -> dict[str, Any]:
        """What `oprd bench` finds; time and memory apart, each measured once."""
        return {
            "time": self._measured(f"{name}, time", memory=False, rounds=self.rounds),
            "memory": self._measured(f"{name}, memory", memory=True, rounds=0),
        }

    def _measured(self, name: str, **how: Any) -> dict[str, Any]:
        asked = {**asdict(self), **self._key, **how, **versions()}
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:10]
        file = CACHE / "cost" / f"{name} {digest}.json"
        if not file.exists():
            # As an update does where nothing else runs.
            with threads(os.cpu_count() or 1):
                cost = measure_cost(
                    [Setup(**self._models(), **self.setup)],
                    ("oprd", *self.objectives),
                    notify=lambda text: typer.echo(f"{name}: {text}", err=True),
                    **how,
                )
            for point in cost["points"]:
                point["setup"] |= self._key
            write_whole(file, json.dumps(cost, indent=1))
        return json.loads(file.read_text(encoding="utf-8"))

    @property
    def _key(self) -> dict[str, Any]:
        """What the lab's models are, in place of the folders that they have here."""
        return {} if self.pair is None else PAIRS[self.pair].key

    def _models(self) -> dict[str, Any]:
        if self.pair is None:
            return {}
        pair = PAIRS[self.pair]
        paths = {"student": str(pair.student.path()), "teacher": str(pair.teacher.path())}
        return {"shape": None, **paths}


@dataclass(frozen=True)
class Cost(Item):
    """Seconds and transient memory of an update, by objective.

    Attributes:
        cases: by what they are called; the first one alone is quick.
    """

    cases: Mapping[str, Case] = field(hash=False)
    report_minutes: ClassVar[float] = 20
    alone: ClassVar[bool] = True

    def table(self, found: Mapping[str, Any]) -> list[str]:
        """Seconds and transient memory as lines of Markdown."""
        return table(found["cases"])

    def verdicts(self, found: Mapping[str, Any]) -> dict[str, bool]:
        """On which of the quick case's objectives OPRD is faster."""
        quick = next(iter(self.cases))
        return verdicts({quick: found["cases"][quick]})

    def report(self, quick: bool) -> None:
        """Measure what was not, and write it."""
        names = list(self.cases)[:1] if quick else list(self.cases)
        write(self.name, {"cases": {n: self.cases[n].measured(n) for n in names}}, quick)


def table(found: Mapping[str, Any]) -> list[str]:
    """Seconds and transient MiB of each objective, as lines of a Markdown table."""
    lines = [
        "| models | objective | seconds, median (range) | OPRD is faster by, median (quartiles) "
        "| MiB | OPRD takes |",
        "|---|---|---|---|---|---|",
    ]
    for name, cost in found.items():
        times, peaks = entries(cost["time"]), entries(cost["memory"])
        for objective, entry in times.items():
            seconds, peak = entry["seconds"], peaks[objective]["transient_bytes"]
            low, median, high = times_faster(times["oprd"], entry)
            cells = (
                name,
                entry["label"],
                f"{seconds['median']:.3g} ({seconds['min']:.3g}-{seconds['max']:.3g})",
                f"{median:.2f}x ({low:.2f}-{high:.2f})",
                f"{peak / MIB:.0f}",
                f"{peaks['oprd']['transient_bytes'] / peak:.0%}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def verdicts(found: Mapping[str, Any]) -> dict[str, bool]:
    """On which models OPRD is faster than each output-space objective.

    There is no verdict where a quarter of the rounds or more finds less than a `MARGIN`, which
    another run of the same measurement may find the other way round.
    """
    settled = {}
    for name, cost in found.items():
        times = entries(cost["time"])
        for entry in times.values():
            low, _, high = times_faster(times["oprd"], entry)
            if entry["family"] in ("output", "naive", "trl") and (
                low > MARGIN or high < 1 / MARGIN
            ):
                settled[f"{name}: OPRD faster than {entry['label']}"] = low > 1
    return settled


def entries(cost: Mapping[str, Any]) -> dict[str, Any]:
    """What one point of a measurement found of each objective, by its name."""
    return {entry["name"]: entry for entry in cost["points"][0]["objectives"]}


def times_faster(oprd: Mapping[str, Any], other: Mapping[str, Any]) -> list[float]:
    """The quartiles over rounds of how much longer the other took in the same round."""
    ratios = [b / a for a, b in zip(oprd["each_round"], other["each_round"], strict=True)]
    return np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
