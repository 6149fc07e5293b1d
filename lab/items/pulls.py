"""Where a bridge pulls the student before any training, by what its own LM head reads there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lab.items.item import Item
from lab.items.ranks import BATCH_SIZE, models_and_rollouts
from lab.pairs import PAIRS
from lab.results import write
from oprd.calibration.bridge.fit import fit_bridge
from oprd.calibration.bridge.settings import FitSettings
from oprd.core.capture import hidden_size

# Of the last layers. A rank has to fit both models.
BRIDGES: Mapping[str, Mapping[str, Any]] = {
    "pca, rank 16": {"rank": 16},
    "pca, rank 64": {"rank": 64},
    "heads, centered": {"basis": "heads", "heads_metric": "centered"},
    "heads, prior": {"basis": "heads", "heads_metric": "prior"},
    "heads, fisher": {"basis": "heads", "heads_metric": "fisher"},
}
SHOWN = "heads, centered"


@dataclass(frozen=True)
class Pulls(Item):
    """The pull that bridges' reports tell of, for several pairs.

    Attributes:
        pairs: names of `lab.pairs.PAIRS`; the first one alone is quick.
        rollouts: of each student, fitted on and held out; quick ones are a quarter of them.
    """

    pairs: tuple[str, ...]
    rollouts: int
    report_minutes: ClassVar[float] = 3

    def report(self, quick: bool) -> None:
        """Fit all of them."""
        count = self.rollouts // 4 if quick else self.rollouts
        found = {pair: pulls(pair, count) for pair in (self.pairs[:1] if quick else self.pairs)}
        write(self.name, {"rollouts": count, "pairs": found}, quick)

    def table(self, found: Mapping[str, Any]) -> list[str]:
        """By pair and bridge, as lines of Markdown."""
        lines = [
            f"{found['rollouts']:,} rollouts, a fifth of them held out; KL(p‖q), nats",
            "",
            "| pair | bridge | before | after ten steps | left over, c |",
            "|---|---|---|---|---|",
        ]
        for pair, of in found["pairs"].items():
            for bridge, row in of.items():
                # Not below zero but for rounding.
                c = "" if row["unreachable"] is None else f"{row['unreachable']:.2f}"
                lines.append(
                    f"| {pair} | {bridge} | {row['before']:.2f} | {row['after']:.2f} "
                    f"| {c.removeprefix('-')} |"
                )
        return lines

    def verdicts(self, found: Mapping[str, Any]) -> dict[str, bool]:
        """Whether both LM heads lead nearer to the teacher of the quick pair."""
        pair = self.pairs[0]
        shown = found["pairs"][pair][SHOWN]
        return {f"{pair}: {SHOWN} lead nearer": shown["after"] < shown["before"]}


def pulls(pair: str, rollouts: int) -> dict[str, dict[str, Any]]:
    """The pull of bridges between the last layers of a pair, by what they are called.

    Returns:
        For each the KL `before` and `after` on held-out rows, and c, `unreachable`, of LM heads.
    """
    models, written = models_and_rollouts(PAIRS[pair], rollouts)
    widest = min(hidden_size(models.student), hidden_size(models.teacher))
    found = {}
    for name, chosen in BRIDGES.items():
        if chosen.get("rank", 1) > widest:
            continue
        settings = FitSettings(positions="all", layers="last", batch_size=BATCH_SIZE, **chosen)
        fit = fit_bridge(models.student, models.teacher, written, settings, progress=False)
        (layer,), pull = fit.report["layers"], fit.report["pull"]
        heads = layer["heads"] or {}
        found[name] = {
            "before": pull["before"],
            "after": pull["after"],
            "unreachable": heads.get("unreachable"),
        }
    return found
