"""How noisy the gradients of the objectives are as the student comes closer to its teacher."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from matplotlib.axes import Axes

from lab import figures
from lab.items.item import Item
from lab.noise import METHODS_MEASURED, Noise, measure_noise
from lab.pairs import PAIRS
from lab.results import write

QUICK: dict[str, Any] = {"shares": (0.03,), "rollouts": 4, "batches": 4}
SOURCES = {"rollouts": "new rollouts", "prompts": "new prompts and rollouts"}


@dataclass(frozen=True)
class GradientNoise(Item):
    """The signal-to-noise ratio of gradients on one pair, along its teacher's own training.

    Attributes:
        pair: a name of `lab.pairs.PAIRS`.
        full: what is drawn.
    """

    pair: str
    full: Noise
    report_minutes: ClassVar[float] = 3

    def table(self, found: Mapping[str, Any]) -> list[str]:
        """SNRs as lines of Markdown."""
        return table(found)

    def verdicts(self, found: Mapping[str, Any]) -> dict[str, bool]:
        """What quick and whole measurements should agree on."""
        return verdicts(found)

    def report(self, quick: bool) -> None:
        """Write what was measured and a picture."""
        noise = replace(self.full, steps=self.full.steps[::2], **QUICK) if quick else self.full
        found = {"pair": self.pair, **measure_noise(PAIRS[self.pair], noise)}
        write(self.name, found, quick)
        _draw(found, self.name, quick)


def verdicts(found: Mapping[str, Any]) -> dict[str, bool]:
    """What quick and whole measurements should agree on."""
    points = [*found["training"], *found["line"]]
    over_prompts = [
        [_number(point["prompts"][method]["snr"]) for method in ("OPRD", "reverse KL")]
        for point in points
    ]
    return {
        "over tokens only top-1 has a variance": deterministic(points),
        "over prompts OPRD's SNR is above the reverse KL's": all(a > b for a, b in over_prompts),
    }


def _number(snr: float | None) -> float:
    return math.inf if snr is None else snr


def deterministic(points: Sequence[dict[str, Any]]) -> bool:
    """Whether drawn tokens change no gradient but that of the sampled-token objective."""
    return not any(any(p["tokens"]["variance_of_others"].values()) for p in points)


def table(found: Mapping[str, Any]) -> list[str]:
    """SNRs by divergence: of tokens at fixed prefixes, then of what is drawn anew as a whole."""
    settings = found["settings"]
    points = [*found["training"], *found["line"]]
    exact = deterministic(points)
    fits = [f"{k} {v['slope']:.2f} ± {v['error']:.2f}" for k, v in found["slopes"].items()]
    lines = [
        f"{found['pair']}: SNR of the gradient of {settings['rollouts']} rollouts; "
        f"{settings['batches']} draws of rollouts. Over tokens top-1's is exact, and the "
        f"variance of all but top-1 is {'exactly 0' if exact else 'NOT 0'}; the slope of top-1's "
        f"log SNR against log δ is, ± standard error: {', '.join(fits)}",
        "",
        f"| student | δ | drawn | {' | '.join(METHODS_MEASURED)} |",
        "|" + "---|" * (3 + len(METHODS_MEASURED)),
    ]
    for point in points:
        tokens = point["tokens"]
        where = f"step {point['step']}" if "step" in point else f"line, {point['share']:g}"
        others = ["∞" if exact else "finite"] * (len(METHODS_MEASURED) - 1)
        lines.append(_row(where, f"{point['delta']:.1e}", "tokens", _snr(tokens["snr"]), *others))
        for source, label in SOURCES.items():
            snrs = [point[source][method]["snr"] for method in METHODS_MEASURED]
            lines.append(_row("", "", label, *map(_snr, snrs)))
    return lines


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _snr(value: float | None) -> str:
    """Whatever is not above zero is what noise hides."""
    if value is None:
        return "∞"
    if value <= 0:
        return "≈ 0"
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}" if value < 1e4 else f"{value:.0e}"


def _draw(found: dict[str, Any], name: str, quick: bool) -> None:
    figure, (given, *anew) = figures.panels(1, 3)
    line = [found["training"][0], *found["line"]]
    _draw_tokens(given, {"checkpoints": found["training"], "line to the teacher": line})
    for axis, (source, label) in zip(anew, SOURCES.items(), strict=True):
        for color, method in zip(figures.COLORS, METHODS_MEASURED, strict=False):
            style = {"color": color, "markersize": 4, "linewidth": 1.2}
            # Variants of top-4 lie on the reverse KL.
            dashes = "--" if method == "reverse KL" else "-"
            axis.plot(*_positive(line, source, method), f"o{dashes}", label=method, **style)
            axis.plot(*_positive(found["training"], source, method), "x", **style)
        axis.set_title(f"{label} (x: checkpoints)", fontsize=10)
    for axis in (given, *anew):
        axis.set(xscale="log", yscale="log", xlabel="δ (nats)", ylabel="SNR of the gradient")
    for axis in (given, anew[0]):
        axis.legend(frameon=False, fontsize=7)
    figures.save(figure, name, quick)


def _draw_tokens(axis: Axes, trajectories: dict[str, Sequence[dict[str, Any]]]) -> None:
    """Top-1's SNR, and what is linear in δ from the first point on."""
    for color, (label, points) in zip(figures.COLORS, trajectories.items(), strict=False):
        deltas = [point["delta"] for point in points]
        snrs = [point["tokens"]["snr"] for point in points]
        axis.plot(deltas, snrs, "o-", color=color, label=label, markersize=4, linewidth=1.2)
    everything = [point for points in trajectories.values() for point in points]
    first, last = everything[0], min(everything, key=lambda point: point["delta"])
    ends = [first["delta"], last["delta"]]
    snr = first["tokens"]["snr"]
    linear = [snr, snr * ends[1] / ends[0]]
    axis.plot(ends, linear, color="0.5", linestyle=":", label="Theorem 6: linear in δ")
    axis.set_title("top-1, tokens at fixed prefixes", fontsize=10)


def _positive(
    points: Sequence[dict[str, Any]], source: str, method: str
) -> tuple[list[float], list[float]]:
    """Divergences and SNRs, without the points where noise hides the signal or there is none."""
    kept = [point for point in points if 0 < _number(point[source][method]["snr"]) < math.inf]
    return [p["delta"] for p in kept], [p[source][method]["snr"] for p in kept]
