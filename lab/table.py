"""What a comparison found, as Markdown."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from lab.differences import area_difference, areas
from lab.pairs import PAIRS
from lab.results import Estimate
from lab.scores import samples


def table(found: Mapping[str, Any]) -> list[str]:
    """The findings of a comparison as Markdown: the methods, and the rates behind them."""
    first = next(iter(found["methods"]))
    k = found.get("samples", samples(PAIRS[found["pair"]].task))["reported"]
    head = [
        "method", "rate", f"Avg@{k}", f"minus {first}, points", f"Best@{k}", "Dist-4", "tokens",
        f"steps to {found['target']:.1%}", "area", f"minus {first}, points",
    ]  # fmt: skip
    lines = [
        f"{found['pair']}: {found['steps']} steps, seeds {', '.join(map(str, found['seeds']))}",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for name in ("teacher", "student"):
        model = found[name]
        lines.append(_row(name, "", f"{model['accuracy']:.1%}", "", *_of_samples([model])))
    for name, row in found["methods"].items():
        beside = ["", ""]
        if name != first:
            of_area = area_difference(found, name, first)
            beside = [Estimate(**row["difference"]).points(), of_area.points()]
        lines.append(
            _row(
                name,
                _rates(row),
                Estimate(**row["final"]).percent(),
                beside[0],
                *_of_samples(row["scores"]),
                reached(row["steps_to_target"]),
                Estimate.of(areas(found, name)).percent(),
                beside[1],
            )
        )
    return lines + _paired(found) + _grid(found)


def _rates(row: Mapping[str, Any]) -> str:
    """The rate of a method's runs, or those that they found."""
    if found := row.get("rates_found"):
        return "found: " + ", ".join(f"{rate:g}" for rate in found)
    return f"{row['learning_rate']:g}"


def _row(*cells: str) -> str:
    """A row of the methods' table, whose last cells may be missing."""
    return f"| {' | '.join([*cells, *[''] * (10 - len(cells))])} |"


def _of_samples(scores: Sequence[Mapping[str, float]]) -> tuple[str, str, str]:
    """Best of the samples, diversity and length, means over seeds."""
    best, distinct, length = (
        fmean(s[key] for s in scores) for key in ("best", "distinct_4", "length")
    )
    return f"{best:.1%}", f"{distinct:.2f}", f"{length:.1f}"


def _paired(found: Mapping[str, Any]) -> list[str]:
    """Differences paired by problem, whose intervals are of problems and not of seeds."""
    first, *others = found["methods"]
    rows = {name: found["methods"][name].get("by_problem") for name in others}
    if not all(rows.values()):
        return []
    points = {
        name: Estimate(row["value"], row["low"], row["high"]).points() for name, row in rows.items()
    }
    said = "; ".join(f"{name} {difference}" for name, difference in points.items())
    return ["", f"Paired by problem, minus {first}, points: {said}."] if points else []


def _grid(found: Mapping[str, Any]) -> list[str]:
    """Accuracy on the tuning problems by rate, where there was a choice."""
    rows = {name: row["tuning"] for name, row in found["methods"].items()}
    rates = sorted({rate for row in rows.values() for rate in row}, key=float)
    if not any(len(row) > 1 for row in rows.values()):
        return []
    lines = ["", f"| tuning, by rate | {' | '.join(rates)} |", "|---" * (len(rates) + 1) + "|"]
    for name, row in rows.items():
        cells = [f"{row[rate]:.1%}" if rate in row else "" for rate in rates]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def reached(when: Sequence[float | None]) -> str:
    """The median over seeds, of which one that never got there, None, took more than any number.

    Where some did not it says how many did.
    """
    taken: Sequence[float] = [np.inf if at is None else at for at in when]
    there, median = int(np.isfinite(taken).sum()), float(np.median(taken))
    if there == 0:
        return "not reached"
    how_many = "" if there == len(taken) else f"reached by {there} of {len(taken)}"
    if not np.isfinite(median):
        return how_many
    return f"{median:.0f}" + (f", {how_many}" if how_many else "")
