"""The memory that an advised run is said to need, before there is a trainer."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from oprd.analysis.inspection.advice import Advice
from oprd.analysis.inspection.asked import Asked
from oprd.calibration.bridge.heads import Common
from oprd.calibration.models import FitModels
from oprd.core.capture import num_layers
from oprd.core.layers import select_layers
from oprd.core.objective import OUTPUT_LOSSES, make_loss
from oprd.models.counting import loaded_in
from oprd.models.distributions import Distributions
from oprd.models.memory import Estimate, Sizes, estimate, not_known, told
from oprd.settings.run import AUTO


def told_need(
    models: FitModels,
    asked: Asked,
    advice: Advice,
    prompt: int,
    run: Mapping[str, Any],
    free: int,
) -> dict[str, Any]:
    """What the run holds at most, in `bytes` by what they are for, and one sentence on it, `said`.

    Args:
        models: the pair.
        asked: how it was looked at.
        advice: what to train with.
        prompt: tokens of the longest one.
        run: of `first_run`.
        free: bytes that are free where nothing is loaded.
    """
    try:
        need = _need(models, asked, advice, prompt, run)
    except Exception as error:  # whatever a model's own code makes of tensors without values
        return {"bytes": None, "said": not_known(error)}
    return {"bytes": asdict(need), "said": told(need, max(free - need.weights, 0))[0]}


def _need(
    models: FitModels, asked: Asked, advice: Advice, prompt: int, run: Mapping[str, Any]
) -> Estimate:
    """By the defaults of `oprd train` where the run says nothing."""
    student, teacher = models.student, models.teacher
    if asked.dtype is None:
        student, teacher = loaded_in(torch.float32, student, teacher)
    accelerated = torch.accelerator.is_available()
    batch, micro_batches = run["per_device_train_batch_size"], run["gradient_accumulation_steps"]
    return estimate(
        student,
        [teacher],
        Sizes(
            batch=batch,
            rollouts=batch * micro_batches,
            prompt=prompt,
            response=asked.sampling.max_new_tokens,
            layers=select_layers(asked.settings.layers, num_layers(student)),
            distributions=_distributions(advice.settings, models.common),
            checkpointing={},
            accumulates=micro_batches > 1,
        ),
        whole=True,
        autocast=partial(torch.autocast, student.device.type, torch.bfloat16, enabled=accelerated),
        searches=advice.settings["learning_rate"] == AUTO,
    )


def _distributions(settings: Mapping[str, Any], common: Common) -> Distributions | None:
    """What a run with the advised settings compares of next-token distributions."""
    if "output_loss" not in settings:
        return None
    loss = make_loss(OUTPUT_LOSSES, settings["output_loss"], {}, "output_loss")
    return Distributions((loss,), None if common is None else len(common[0]))
