"""How alike the states of student and teacher are by the place in the response."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from matplotlib.axes import Axes

from lab import figures
from lab.items.item import Item
from lab.pairs import PAIRS, Pair
from lab.readings import Models, read_states, read_student
from lab.results import write
from lab.runs import Run
from lab.students import TAUGHT, Students
from oprd.core.positions import select_positions
from oprd.models.batch import MicroBatch

PRETRAINED = "SmolLM2-135M, untouched"
ENDS: tuple[Literal["first_k", "last_k"], ...] = ("first_k", "last_k")


@dataclass(frozen=True)
class Positions(Item):
    """Cosines on the first and on the last k tokens, for several students.

    Attributes:
        students: which.
        pretrained: whether the pretrained student stands beside them.
    """

    students: Students
    pretrained: bool = False
    report_minutes: ClassVar[float] = 2

    def plan(self, quick: bool) -> list[Run]:
        """The runs whose students are looked at."""
        return self.students.taught(quick)

    def table(self, found: Mapping[str, Any]) -> list[str]:
        """Cosines as lines of Markdown."""
        return table(found["curves"])

    def verdicts(self, found: Mapping[str, Any]) -> dict[str, bool]:
        """What quick and whole measurements should agree on."""
        pair = self.students.pair
        oprd, kl = (found["curves"][f"{pair}, {of}"]["last_k"]["last"][-1] for of in TAUGHT)
        return {"OPRD's states are nearer than the reverse KL's": oprd > kl}

    def report(self, quick: bool) -> None:
        """Write the curves and a picture."""
        rollouts, additions = (100, 2) if quick else (250, 8)
        pair = self.students.pair
        # One seed each: the means are over hundreds of rollouts.
        curves = {
            f"{pair}, {student}": _of(PAIRS[pair], folders[0], rollouts)
            for student, folders in self.students.folders(quick).items()
        }
        found: dict[str, Any] = {"rollouts": rollouts, "curves": curves}
        if self.pretrained:
            others = PAIRS["additions"]
            curves[PRETRAINED] = _of(others, others.student.path(), additions)
            found["additions"] = additions
        write(self.name, found, quick)
        _draw(curves, self.name, quick)


def cosine_curves(models: Models, batch: MicroBatch) -> dict[str, Any]:
    """Mean cosines on the first and last k tokens of each response, for every k.

    A response shorter than k gives all that it has; each token weighs the same.

    Returns:
        the values of `k`, and under "first_k" and "last_k" those of the last layer, `last`, and of
        the mean of all layers, `mean`.
    """
    student, teacher = read_states(models.student, batch), read_states(models.teacher, batch)
    by_layer = {
        layer: torch.cosine_similarity(rows.float(), teacher[layer].float(), dim=1)
        for layer, rows in student.items()
    }
    last = by_layer[max(by_layer)]
    mean = torch.stack(list(by_layer.values())).mean(dim=0)
    longest = batch.response.shape[1]
    found: dict[str, Any] = {"k": list(range(1, longest + 1))}
    for end in ENDS:
        masks = [
            select_positions(batch.response, end, k)[batch.response] for k in range(1, longest + 1)
        ]
        found[end] = {
            name: [float(values[mask].mean()) for mask in masks]
            for name, values in (("last", last), ("mean", mean))
        }
    return found


def _of(pair: Pair, student: Path, rollouts: int) -> dict[str, Any]:
    return cosine_curves(*read_student(pair, student, rollouts))


def table(curves: dict[str, dict[str, Any]]) -> list[str]:
    """Cosines on a quarter of the longest response at either end, and on all of it."""
    lines = [
        "| student | k | last layer: first k | last k | all | mean of layers: first k | last k "
        "| all |",
        "|" + "---|" * 8,
    ]
    for name, curve in curves.items():
        place = max(0, len(curve["k"]) // 4 - 1)
        cells = [
            f"{100 * value:.1f}%"
            for of in ("last", "mean")
            for value in (
                curve["first_k"][of][place], curve["last_k"][of][place], curve["last_k"][of][-1]
            )
        ]  # fmt: skip
        lines.append(f"| {name} | {curve['k'][place]} | {' | '.join(cells)} |")
    return lines


def _draw(curves: dict[str, dict[str, Any]], name: str, quick: bool) -> None:
    figure, axes = figures.panels(1, 2)
    for axis, (of, title) in zip(
        axes, (("last", "last layer"), ("mean", "mean of layers")), strict=True
    ):
        for color, (label, curve) in zip(figures.COLORS, curves.items(), strict=False):
            _draw_ends(axis, curve, of, color, label)
        axis.set_title(f"{title}: first k (solid), last k (dashed)", fontsize=10)
        axis.set(xscale="log", xlabel="k (tokens)", ylabel="cosine of the states")
    axes[0].legend(frameon=False, fontsize=7)
    figures.save(figure, name, quick)


def _draw_ends(axis: Axes, curve: dict[str, Any], of: str, color: str, label: str) -> None:
    first, last = (curve[end][of] for end in ENDS)
    axis.plot(curve["k"], first, "-", color=color, label=label, linewidth=1.4)
    axis.plot(curve["k"], last, "--", color=color, linewidth=1.4)
