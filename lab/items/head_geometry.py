"""What the LM head hides from output-space losses, and what students leave there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from lab import figures
from lab.geometry import MSE, losses_along, relative_error, split_error
from lab.items.item import Item
from lab.pairs import PAIRS
from lab.readings import read_states, read_student
from lab.results import Estimate, write
from lab.runs import Run
from lab.students import SUMS
from oprd.core.capture import decoder
from oprd.core.output.divergence import ForwardKL, ReverseKL, TopK
from oprd.core.output.spectrum import HeadSpectrum, head_spectrum
from oprd.models.heads import lm_head

# Of a state's mean norm: small enough for losses to be quadratic in it.
SIZE = 1e-3
LOSSES = {
    "reverse KL": ReverseKL(),
    "forward KL": ForwardKL(),
    "top-4 of Eq. 5": TopK(k=4),
}
PRETRAINED = "SmolLM2-135M"
# What no loss falls below by more than rounding.
ROUNDING = 1e6


@dataclass(frozen=True)
class Amount:
    """How much is measured.

    Attributes:
        rollouts: of each of the lab's students.
        additions: rollouts of the pretrained student.
        rows: states that are moved along a direction.
        directions: how many, of the pretrained head.
    """

    rollouts: int
    additions: int
    rows: int
    directions: int


FULL, QUICK = Amount(250, 8, 16, 10), Amount(100, 2, 8, 4)


@dataclass(frozen=True)
class HeadGeometry(Item):
    """Spectra of two heads, losses along their directions, and the errors of students."""

    report_minutes: ClassVar[float] = 2

    def plan(self, quick: bool) -> list[Run]:
        """The runs whose students are looked at."""
        return SUMS.taught(quick)

    def table(self, found: Mapping[str, Any]) -> list[str]:
        """Losses by direction and errors of students as lines of Markdown."""
        return [*heads_table(found["heads"]), "", *errors_table(found["errors"])]

    def verdicts(self, found: Mapping[str, Any]) -> dict[str, bool]:
        """What quick and whole measurements should agree on."""
        unseen = {k: np.mean([s["unseen"] for s in of]) for k, of in found["errors"].items()}
        along = found["heads"][PRETRAINED]["along"]
        strongest, weakest = (point["losses"]["reverse KL"] for point in (along[0], along[-1]))
        return {
            "OPRD leaves less in the null space than the reverse KL": bool(
                unseen["OPRD"] < unseen["reverse KL"]
            ),
            "the reverse KL sees the weakest direction less": weakest < strongest,
        }

    def report(self, quick: bool) -> None:
        """Write what was measured and a picture."""
        amount = QUICK if quick else FULL
        heads = {f"lab, {SUMS.pair}": _lab_head(amount), PRETRAINED: _pretrained_head(amount)}
        errors = {
            student: [_error(folder, amount.rollouts) for folder in folders]
            for student, folders in SUMS.folders(quick).items()
        }
        found = {"amount": vars(amount), "size": SIZE, "heads": heads, "errors": errors}
        write(self.name, found, quick)
        _draw(found, self.name, quick)


def _lab_head(amount: Amount) -> dict[str, Any]:
    pair = PAIRS[SUMS.pair]
    models, batch = read_student(pair, pair.student.path(), amount.rows)
    # Every direction that the head sees and a few that it does not.
    return _head(models.teacher, _last(read_states(models.teacher, batch)), amount.rows, None)


def _pretrained_head(amount: Amount) -> dict[str, Any]:
    pair = PAIRS["additions"]
    models, batch = read_student(pair, pair.student.path(), amount.additions)
    last = _last(read_states(models.student, batch))
    return _head(models.student, last, amount.rows, amount.directions)


def _head(model: Any, states: Tensor, rows: int, directions: int | None) -> dict[str, Any]:
    """The spectrum of a model's head, and losses along some directions at some of its states."""
    head = lm_head(model).detach()
    spectrum = head_spectrum(head.weight)
    kept = states[:: max(1, len(states) // rows)][:rows]
    size = SIZE * float(kept.norm(dim=1).mean())
    width = len(spectrum.values)
    seen = spectrum.rank
    places = (
        [*range(seen), *range(seen, width, max(1, (width - seen) // 3))]
        if directions is None
        else sorted({round(x) - 1 for x in np.geomspace(1, width, directions)})
    )
    final_norm: Any = decoder(model).norm
    scaled = head_spectrum(head.weight, final_norm.weight)
    return {
        "shape": list(head.weight.shape),
        "rank": seen,
        "condition": spectrum.condition,
        "condition_before_norm": scaled.condition,
        "values": spectrum.values.tolist(),
        "along": [_along(head, kept, spectrum, place, size) for place in places],
    }


def _along(
    head: Any, rows: Tensor, spectrum: HeadSpectrum, place: int, size: float
) -> dict[str, Any]:
    losses = losses_along(head, rows, spectrum.directions[place], size, LOSSES)
    return {"i": place + 1, "value": float(spectrum.values[place]), "losses": losses}


def _error(folder: Path, rollouts: int) -> dict[str, Any]:
    """A student's distance from its teacher on its own rollouts, by layer and at the last split."""
    models, batch = read_student(PAIRS[SUMS.pair], folder, rollouts)
    student, teacher = read_states(models.student, batch), read_states(models.teacher, batch)
    spectrum = head_spectrum(lm_head(models.teacher).weight)
    split = split_error(_last(student), _last(teacher), spectrum.directions, spectrum.rank)
    return {
        **split._asdict(),
        "layers": {layer: relative_error(student[layer], teacher[layer]) for layer in student},
    }


def _last(states: dict[int, Tensor]) -> Tensor:
    return states[max(states)]


def heads_table(heads: dict[str, dict[str, Any]]) -> list[str]:
    """‖Δh‖²/loss along v_i beside that along v_1, as lines of a Markdown table."""
    lines = ["‖Δh‖²/loss along v_i, as a multiple of that along v_1", ""]
    lines += [f"| head | i | (σ_1/σ_i)² | {' | '.join(LOSSES)} | {MSE} |"]
    lines.append("|" + "---|" * (4 + len(LOSSES)))
    for name, head in heads.items():
        shape = " × ".join(map(str, head["shape"]))
        for at in _shown(head):
            lines.append(_along_row(f"{name}, {shape}", at, head))
    conditions = "; ".join(
        f"{name}: rank {head['rank']} of {len(head['values'])}, σ_1/σ_rank {head['condition']:.1f}"
        f" ({head['condition_before_norm']:.1f} from before the final norm's weight)"
        for name, head in heads.items()
    )
    return [*lines, "", conditions]


def _shown(head: dict[str, Any]) -> list[dict[str, Any]]:
    """About six directions from the first to the last."""
    along = head["along"]
    places = np.unique(np.linspace(0, len(along) - 1, 6).round().astype(int))
    return [along[place] for place in places]


def _along_row(name: str, at: dict[str, Any], head: dict[str, Any]) -> str:
    first = head["along"][0]
    hidden = at["i"] > head["rank"]
    cells = ["∞" if hidden else f"{(first['value'] / at['value']) ** 2:.3g}"]
    cells += [_multiple(first["losses"][loss], value) for loss, value in at["losses"].items()]
    return f"| {name} | {at['i']} | {' | '.join(cells)} |"


def _multiple(first: float, value: float) -> str:
    """Their ratio, of which more than a million is rounding of a loss that is not there."""
    return f"{first / value:.3g}" if value * ROUNDING > first else f"> {ROUNDING:,.0f}"


def errors_table(errors: Mapping[str, Sequence[dict[str, Any]]]) -> list[str]:
    """Squared errors of students over the teacher's squared norms, means over seeds."""
    layers = list(next(iter(errors.values()))[0]["layers"])
    lines = [
        f"{SUMS.pair}: ‖Δh‖²/‖h_teacher‖² on the student's own rollouts",
        "",
        f"| student | seeds | {' | '.join(f'layer {layer}' for layer in layers)} | last, seen "
        "by the head | last, null space | share of the last error in the null space |",
        "|" + "---|" * (5 + len(layers)),
    ]
    for name, seeds in errors.items():
        values = [
            *([seed["layers"][layer] for seed in seeds] for layer in layers),
            *([seed[key] for seed in seeds] for key in ("seen", "unseen", "unseen_share")),
        ]
        cells = [Estimate.of(value).percent() for value in values]
        lines.append(f"| {name} | {len(seeds)} | {' | '.join(cells)} |")
    return lines


def _draw(found: dict[str, Any], name: str, quick: bool) -> None:
    figure, (spectra, along, errors) = figures.panels(1, 3)
    for color, (label, head) in zip(figures.COLORS, found["heads"].items(), strict=False):
        values = np.array(head["values"][: head["rank"]])
        spectra.plot(1 + np.arange(len(values)), values / values[0], color=color, label=label)
        at = [point for point in head["along"] if point["i"] <= head["rank"]]
        predicted = [(at[0]["value"] / point["value"]) ** 2 for point in at]
        measured = [at[0]["losses"]["reverse KL"] / p["losses"]["reverse KL"] for p in at]
        along.plot(predicted, measured, "o", color=color, label=f"{label}, reverse KL")
    spectra.set(xscale="log", yscale="log", xlabel="i", ylabel="σ_i / σ_1")
    spectra.set_title("spectrum of the centred head", fontsize=10)
    ends = [1, max(along.get_xlim())]
    along.plot(ends, ends, ":", color="0.5", label="(σ_1/σ_i)²")
    along.plot(ends, [1, 1], "-", color=figures.COLORS[2], label=MSE)
    along.set(xscale="log", yscale="log", xlabel="(σ_1/σ_i)²", ylabel="‖Δh‖²/loss beside v_1")
    along.set_title("blindness of a loss by direction", fontsize=10)
    width = 0.8 / len(found["errors"])
    labels: list[str] = []
    for number, (label, seeds) in enumerate(found["errors"].items()):
        means = {
            **{f"layer {k}": np.mean([s["layers"][k] for s in seeds]) for k in seeds[0]["layers"]},
            "seen": np.mean([s["seen"] for s in seeds]),
            "null": np.mean([s["unseen"] for s in seeds]),
        }
        labels = list(means)
        places = np.arange(len(means)) + number * width
        errors.bar(
            places,
            list(map(float, means.values())),
            width,
            color=figures.COLORS[number],
            label=label,
        )
    errors.set_xticks(np.arange(len(labels)) + width, labels, rotation=30, fontsize=8)
    errors.set_ylabel("‖Δh‖² / ‖h teacher‖²")
    errors.set_title("students' error by layer, and at the last by space", fontsize=10)
    for axis in (spectra, along, errors):
        axis.legend(frameon=False, fontsize=7)
    figures.save(figure, name, quick)
