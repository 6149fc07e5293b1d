"""Fig. 12 and Theorem 3: what a bridge carries by its rank."""

import json
from typing import Any

from lab.items import bridges
from lab.results import RESULTS, write
from lab.runs import Run
from oprd.reports.bridge import plot_bridge

TITLE = "Fig. 12, Theorem 3: cosine, R² and E(r) of a bridge by rank"
METHOD = "Bridge"


def fitted(quick: bool) -> Run:
    """A run that fits a bridge before its first step, whatever it goes on to do."""
    comparison = bridges.comparison(quick)
    return comparison.run(METHOD, comparison.rates[0], comparison.seeds[0])


def plan(quick: bool) -> list[Run]:
    """The one run."""
    return [fitted(quick)]


def report(quick: bool) -> list[str]:
    """Write the fit's report and picture, and return the curve by rank."""
    name = f"ranks{'-quick' if quick else ''}"
    fit = json.loads((fitted(quick).folder / "bridge" / "report.json").read_text(encoding="utf-8"))
    # It names where the models lie on this machine.
    del fit["provenance"]
    lines = table(fit)
    write(name, fit, lines)
    plot_bridge(fit, RESULTS / f"{name}.png")
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
