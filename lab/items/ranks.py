"""What a bridge carries by its rank."""

import json
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

    def plan(self, quick: bool) -> list[Run]:
        """A run through a bridge, of the first seed."""
        comparison = self.full.quick({}) if quick else self.full
        return [comparison.run("Bridge", RATE, comparison.seeds[0])]

    def report(self, quick: bool) -> list[str]:
        """Write the fit's report and picture, and return the curve by rank."""
        (run,) = self.plan(quick)
        fit = json.loads((run.folder / "bridge" / "report.json").read_text(encoding="utf-8"))
        # It names where the models lie on this machine.
        del fit["provenance"]
        lines = table(fit)
        write(self.name, fit, lines, quick)
        plot_bridge(fit, result_file(f"{self.name}.png", quick))
        return lines


def table(fit: dict[str, Any]) -> list[str]:
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
