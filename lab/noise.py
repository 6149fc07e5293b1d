"""The noise of a gradient by its source: tokens at fixed prefixes, whole rollouts, prompts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from lab.gradients import GradientMoments, Objectives, sampled_token_variance
from lab.pairs import Moment, Pair
from lab.readings import Models, held_out_prompts, load_models, write_rollouts

SAMPLED, EXACT = "top-1", "reverse KL"
METHODS_MEASURED = (SAMPLED, "top-4 of the paper's runs", "top-4 of Eq. 5", EXACT, "OPRD")
# Of a gradient that no drawn token enters, to see that it stays the same.
REPEATS = 2


@dataclass(frozen=True)
class Noise:
    """What is drawn.

    Attributes:
        steps: of the student's training at which it is measured.
        shares: how far from the teacher, on the straight line to the first of the steps.
        rollouts: of the batch whose gradient it is.
        batches: of new rollouts, once of the same prompts and once of new ones.
        seed: of everything that is drawn.
    """

    steps: tuple[int, ...]
    shares: tuple[float, ...]
    rollouts: int = 8
    batches: int = 16
    seed: int = 0


def measure_noise(pair: Pair, noise: Noise) -> dict[str, Any]:
    """The noise at every step and share, and the slopes of log SNR against log δ.

    Raises:
        TypeError: the lab did not train the teacher, so that there are no students on its way.
    """
    if not isinstance(pair.teacher, Moment):
        raise TypeError(f"the lab has no earlier checkpoints of {pair.teacher}.")
    recipe = pair.teacher.recipe
    trained = [
        {"step": step, **_at(pair, Moment(recipe, step), 1.0, noise)} for step in noise.steps
    ]
    first = Moment(recipe, noise.steps[0])
    line = [{"share": share, **_at(pair, first, share, noise)} for share in noise.shares]
    return {
        "settings": asdict(noise),
        "training": trained,
        "line": line,
        "slopes": {"training": slope(trained), "line": slope([trained[0], *line])},
    }


def slope(points: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of log SNR of the drawn tokens against log δ, by least squares, with its standard error."""
    delta = np.log([point["delta"] for point in points])
    fit: Any = stats.linregress(delta, np.log([point["tokens"]["snr"] for point in points]))
    return {"slope": float(fit.slope), "error": float(fit.stderr)}


def token_noise(models: Models, at: Objectives, generator: torch.Generator) -> dict[str, Any]:
    """The noise of the tokens ŷ_t ~ p_t that the sampled-token objective looks at, exactly.

    The mean over all of them is the exact reverse KL's gradient.

    Args:
        models: the student and its teacher.
        at: their objectives on a batch of rollouts.
        generator: of the tokens that the other objectives are shown.

    Returns:
        its SNR, signal and variance, and the variances of the other objectives over `REPEATS`
        draws.
    """
    exact = GradientMoments()
    exact.add(at.gradient(EXACT))
    signal = float(exact.mean.square().sum())
    variance = sampled_token_variance(models.student, models.teacher, at.batch)
    tokens = at.draw_tokens(REPEATS, generator)
    return {
        "snr": signal / variance,
        "signal": signal,
        "variance": variance,
        "variance_of_others": {
            method: _repeated(at, method, tokens).variance
            for method in METHODS_MEASURED
            if method != SAMPLED
        },
    }


def rollout_noise(
    models: Models, pair: Pair, noise: Noise, *, new_prompts: bool
) -> dict[str, dict[str, float | None]]:
    """Signal, variance and SNR of each objective over new rollouts; None where none differed.

    Args:
        models: the student and its teacher.
        pair: whose task it is.
        noise: how many rollouts and batches.
        new_prompts: each batch answers other prompts, as in training.
    """
    moments = {method: GradientMoments() for method in METHODS_MEASURED}
    for number in range(1, noise.batches + 1):
        at = _objectives(models, pair, noise, number, number if new_prompts else 0)
        for method, of_method in moments.items():
            of_method.add(at.gradient(method))
    return {
        method: {
            # JSON has no infinity.
            "snr": of.snr if of.variance else None,
            "signal": of.squared_mean,
            "variance": of.variance,
        }
        for method, of in moments.items()
    }


def _at(pair: Pair, moment: Moment, share: float, noise: Noise) -> dict[str, Any]:
    """Both kinds of noise of a student, or of one that is nearer to its teacher."""
    models = load_models(moment.path(), pair.teacher.path())
    _approach(models, share)
    at = _objectives(models, pair, noise, 0, 0)
    generator = torch.Generator().manual_seed(noise.seed)
    found: dict[str, Any] = {"delta": at.divergence()}
    found["tokens"] = token_noise(models, at, generator)
    for name, new_prompts in (("rollouts", False), ("prompts", True)):
        found[name] = rollout_noise(models, pair, noise, new_prompts=new_prompts)
    return found


@torch.no_grad()
def _approach(models: Models, share: float) -> None:
    """Leave a share of the way from the teacher's weights to the student's."""
    parameters = zip(models.student.parameters(), models.teacher.parameters(), strict=True)
    for student, teacher in parameters:
        student.lerp_(teacher, 1 - share)


def _objectives(models: Models, pair: Pair, noise: Noise, number: int, part: int) -> Objectives:
    """On the rollouts of some number, which the student writes, of one part of the prompts."""
    count = noise.rollouts
    prompts = held_out_prompts(pair, (part + 1) * count)[-count:]
    limit = pair.task_module.LONGEST_RESPONSE
    seed = 1000 * noise.seed + number
    batch = write_rollouts(models.student, models.tokenizer, prompts, limit, seed)
    return Objectives(models.student, models.teacher, batch)


def _repeated(at: Objectives, method: str, tokens: torch.Tensor) -> GradientMoments:
    moments = GradientMoments()
    for drawn in tokens:
        moments.add(at.gradient(method, drawn))
    return moments
