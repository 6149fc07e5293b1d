"""What a fit can be expected to carry, as a dictionary that JSON can hold.

Theorem 3 is read off the rows that were held out: on those of the fit, ρ² is too high where rows
are few.

Letters: H teacher width, R rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from oprd.calibration.bridge.scores import HeldOutScores
from oprd.core.bridge import Bridge
from oprd.core.bridge.pull import STEPS, Pull
from oprd.core.bridge.rank import best_rank, rank_error
from oprd.core.bridge.score import PairScore


@dataclass(frozen=True)
class _Spectrum:
    """Teacher components of one layer pair: λ of the fit, ρ² held out."""

    eigenvalues: Tensor
    r_squared: Tensor

    @property
    def relative_error(self) -> Tensor:
        """[H + 1] E(r) / Σ λ, so that layers can be averaged."""
        return rank_error(self.eigenvalues, self.r_squared) / self.eigenvalues.sum()


def bridge_report(
    bridge: Bridge, scores: HeldOutScores, counts: Mapping[str, int]
) -> dict[str, Any]:
    """The report on a fitted bridge.

    Args:
        bridge: the bridge.
        scores: on rows that were held out.
        counts: how many rollouts there were, fitted on and held out.
    """
    spectra = {layer: _spectrum(bridge, scores, layer) for layer in scores.after}
    # Theorem 3 is about a regression: LM heads are read whole.
    fitted = [layer for layer in scores.after if layer != bridge.heads_layer]
    curve, advice = [], None
    if fitted:
        errors = torch.stack([spectra[layer].relative_error for layer in fitted]).mean(dim=0)
        of_fit = [scores.after[layer] for layer in fitted]
        highest = len(of_fit[0].total)
        curve = [_at_rank(of_fit, errors, rank) for rank in _ranks(bridge.rank, highest)]
        advice = _advice(errors[: highest + 1])
    return {
        "rank": bridge.rank,
        "basis": bridge.basis,
        "center": bridge.center,
        "student_dim": bridge.student_dim,
        "teacher_dim": bridge.teacher_dim,
        "rollouts": dict(counts),
        "rows": {"fit": bridge.rows, "held_out": scores.rows},
        "provenance": bridge.provenance,
        "layers": [_layer(bridge, scores, spectra, pair) for pair in bridge.pairs],
        "curve": curve,
        "advice": advice,
        # What the tokens of two vocabularies carry is known where there are two.
        "pull": scores.pull and _pull(scores.pull, one_vocabulary=scores.carried is None),
        **({} if scores.carried is None else {"carried": scores.carried}),
    }


def _spectrum(bridge: Bridge, scores: HeldOutScores, layer: int) -> _Spectrum:
    eigenvalues = bridge.statistics[layer].eigenvalues
    r_squared = torch.zeros_like(eigenvalues)
    held_out = scores.after[layer].component_r_squared.clamp(0, 1)
    r_squared[: len(held_out)] = held_out
    return _Spectrum(eigenvalues, r_squared)


def _layer(
    bridge: Bridge, scores: HeldOutScores, spectra: Mapping[int, _Spectrum], pair: tuple[int, int]
) -> dict[str, Any]:
    student, teacher = pair
    rank = bridge.rank_of(student)
    before, after = scores.before[student], scores.after[student].at(rank)
    fit, spectrum = bridge.statistics[student], spectra[student]
    return {
        "student": student,
        "teacher": teacher,
        "rank": rank,
        "heads": _heads(bridge, after) if student == bridge.heads_layer else None,
        "cosine": {"before": before.cosine, "after": after.cosine},
        "r_squared": {"before": before.r_squared, "after": after.r_squared},
        "states_cosine": None if scores.states is None else scores.states[student],
        "ridge": fit.ridge,
        "explained_variance": fit.explained_variance,
        "best_rank": best_rank(spectrum.eigenvalues, spectrum.r_squared),
        "rank_error": spectrum.relative_error.tolist(),
        "eigenvalues": spectrum.eigenvalues.tolist(),
        "component_r_squared": {
            "fit": fit.r_squared.tolist(),
            "held_out": spectrum.r_squared.tolist(),
        },
    }


def _ranks(chosen: int, highest: int) -> list[int]:
    """1, 2, 4, … with the chosen and the highest rank among them."""
    powers = [1 << n for n in range(highest.bit_length())]
    return sorted({*powers, chosen, highest})


def _heads(bridge: Bridge, after: PairScore) -> dict[str, Any]:
    """What both LM heads say of held-out rows before training, and what no state could undo."""
    assert bridge.heads_layer is not None
    return {
        "metric": bridge.heads_metric,
        "distance": float(after.residual.sum()) / max(after.rows, 1),
        "unreachable": bridge.statistics[bridge.heads_layer].unreachable,
    }


def _at_rank(scores: Sequence[PairScore], errors: Tensor, rank: int) -> dict[str, float]:
    """Means over layers."""
    cut = [score.at(rank) for score in scores]
    return {
        "rank": rank,
        "cosine": _mean([score.cosine for score in cut]),
        "r_squared": _mean([score.r_squared for score in cut]),
        "rank_error": float(errors[rank]),
    }


def _pull(found: Pull, *, one_vocabulary: bool) -> dict[str, Any]:
    """Means over the rows that were read, and what follows where the pull leads away."""
    before, after = (total / max(found.rows, 1) for total in (found.before, found.after))
    problem = None
    if after > before:
        problem = (
            f"this bridge pulls the student away from what the teacher says: {STEPS} gradient "
            "steps on its last states bring them nearer, and the KL of its next tokens to the "
            f"teacher's from {before:.3g} to {after:.3g} nats. Take another rank or basis"
        )
        problem += ", or an output_loss with representation_weight=0." if one_vocabulary else "."
    return {"rows": found.rows, "before": before, "after": after, "problem": problem}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _advice(errors: Tensor) -> dict[str, Any]:
    """The rank of least E(r), averaged over layers, and why."""
    rank = int(errors.argmin())
    if rank == 0:
        reason = (
            "on held-out rows the student predicts less than half of even the teacher's first "
            "directions: add prompts, or choose other layers."
        )
    elif rank == len(errors) - 1:
        reason = (
            "on held-out rows the student predicts more than half of every direction that the "
            "rows determine: with more rows a higher rank may be better still."
        )
    else:
        reason = (
            "up to there the student predicts on average more than half of each further direction "
            "of the teacher on held-out rows (ρ² above 1/2, Theorem 3), beyond it less."
        )
    return {"rank": rank, "rank_error": float(errors[rank]), "reason": reason}
