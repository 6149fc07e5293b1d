"""What a bridge carries by its rank."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lab.comparison import Comparison
from lab.results import result_file, write
from lab.runs import Run
from oprd.reports.bridge import plot_bridge

# Of no consequence: the bridge is fitted before the first step.
RATE = 1e-3


@dataclass(frozen=True)
class Ranks:
    """The report of a bridge that a run fitted before its first step.

    Attributes:
        name: of its files in `lab/results`.
        title: what of the paper it is.
        full: a comparison that trains through a bridge.
    """

    name: str
    title: str
    full: Comparison
    report_minutes: ClassVar[float] = 0.1
    alone: ClassVar[bool] = False

    def plan(self, quick: bool) -> list[Run]:
        """A run through a bridge, of the first seed."""
        comparison = self.full.quick({}) if quick else self.full
        return [comparison.run("Bridge", RATE, comparison.seeds[0])]

    def table(self, found: Mapping[str, Any]) -> list[str]:
        """The curve by rank as lines of Markdown."""
        return table(found)

    def verdicts(self, found: Mapping[str, Any]) -> dict[str, bool]:
        """What quick and whole measurements should agree on."""
        cosines = {at["rank"]: at["cosine"] for at in found["curve"]}
        return {"the cosine is higher at rank 8 than at rank 1": cosines[8] > cosines[1]}

    def report(self, quick: bool) -> None:
        """Write the fit's report and picture."""
        (run,) = self.plan(quick)
        fit = json.loads((run.folder / "bridge" / "report.json").read_text(encoding="utf-8"))
        # It names where the models lie on this machine.
        del fit["provenance"]
        write(self.name, fit, quick)
        plot_bridge(fit, result_file(f"{self.name}.png", quick))


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
