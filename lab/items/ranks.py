"""What a bridge carries by its rank."""

import json
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, ClassVar, Protocol

from lab.comparison import Comparison
from lab.models import CACHE
from lab.pairs import PAIRS
from lab.results import result_file, write
from lab.runs import RANK, Run
from oprd.cli.bridge import fit
from oprd.reports.bridge import plot_bridge

# Of no consequence: the bridge is fitted before the first step.
RATE = 1e-3


class Source(Protocol):
    """Where the report of a fit comes from."""

    def plan(self, quick: bool) -> list[Run]:
        """The runs that it needs."""
        ...

    def fitted(self, quick: bool) -> Path:
        """The report, which is made where it is not there."""
        ...


@dataclass(frozen=True)
class OfRun:
    """The fit of a run that trains through a bridge, the first seed's."""

    comparison: Comparison

    def plan(self, quick: bool) -> list[Run]:
        """That run."""
        comparison = self.comparison.quick({}) if quick else self.comparison
        return [comparison.run("Bridge", RATE, comparison.seeds[0])]

    def fitted(self, quick: bool) -> Path:
        """What the run left."""
        (run,) = self.plan(quick)
        return run.folder / "bridge" / "report.json"


@dataclass(frozen=True)
class OfModels:
    """A fit of its own, on a pair that is not trained through it.

    Attributes:
        pair: a name of `lab.pairs.PAIRS`.
        prompts: a task of `oprd bridge fit`.
        rollouts: how many, of the full and of the quick fit.
    """

    pair: str
    prompts: str
    rollouts: tuple[int, int]

    def plan(self, quick: bool) -> list[Run]:
        """None."""
        return []

    def fitted(self, quick: bool) -> Path:
        """The report of `oprd bridge fit`."""
        pair, count = PAIRS[self.pair], self.rollouts[quick]
        folder = CACHE / "bridges" / f"{self.pair}, {count} rollouts"
        if not (folder / "report.json").exists():
            # Its table is said again by the item.
            with redirect_stdout(StringIO()):
                fit(
                    str(pair.student.path()),
                    str(pair.teacher.path()),
                    prompts=self.prompts,
                    output_dir=folder,
                    rank=RANK,
                    positions="all",
                    max_prompts=count,
                    max_completion_length=pair.task_module.LONGEST_RESPONSE,
                    batch_size=32,
                    dtype="float32",
                )
        return folder / "report.json"


@dataclass(frozen=True)
class Ranks:
    """The report of a fitted bridge.

    Attributes:
        name: of its files in `lab/results`.
        title: what of the paper it is.
        source: of the fit.
    """

    name: str
    title: str
    source: Source
    report_minutes: ClassVar[float] = 3
    alone: ClassVar[bool] = False

    def plan(self, quick: bool) -> list[Run]:
        """The runs that leave the fit."""
        return self.source.plan(quick)

    def table(self, found: Mapping[str, Any]) -> list[str]:
        """The curve by rank as lines of Markdown."""
        return table(found)

    def verdicts(self, found: Mapping[str, Any]) -> dict[str, bool]:
        """What quick and whole measurements should agree on."""
        cosines = {at["rank"]: at["cosine"] for at in found["curve"]}
        return {"the cosine is higher at rank 8 than at rank 1": cosines[8] > cosines[1]}

    def report(self, quick: bool) -> None:
        """Write the fit's report and picture."""
        found = json.loads(self.source.fitted(quick).read_text(encoding="utf-8"))
        # It names where the models lie on this machine.
        del found["provenance"]
        write(self.name, found, quick)
        plot_bridge(found, result_file(f"{self.name}.png", quick))


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
