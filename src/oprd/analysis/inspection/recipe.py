"""Advice as a file that `oprd train --config` runs, with the reasons beside its settings."""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

from oprd.analysis.inspection.advice import Advice
from oprd.text import one_line

WIDTH = 96
# Rollouts of a micro-batch, and micro-batches of a step, of a first run.
BATCH, MICRO_BATCHES = 4, 4
STEP = BATCH * MICRO_BATCHES
_ACCUMULATED = "gradient_accumulation_steps"


def first_run(prompts: int) -> dict[str, Any]:
    """What a first run takes, on one device, whose steps so many prompts can fill."""
    batch = min(BATCH, prompts)
    return {
        "max_steps": 200,
        "per_device_train_batch_size": batch,
        _ACCUMULATED: min(MICRO_BATCHES, prompts // batch),
        "logging_steps": 1,
        "report_to": "none",
    }


def recipe(advice: Advice, places: Mapping[str, Any], prompts: int) -> str:
    """The text of the file.

    Args:
        advice: what to train with.
        places: models, prompts, output directory, and how prompts and rollouts are read and drawn,
            as settings of `oprd train`.
        prompts: that are known to be there to train on.
    """
    because = {reason.setting: reason.because for reason in advice.reasons}
    run = first_run(prompts)
    if prompts < STEP:
        because[_ACCUMULATED] = (
            f"{prompts} prompts, which are known to fit, fill no step of {STEP} rollouts."
        )
    settings = {**places, **advice.settings, **run}
    lines = [*_comment(f"Written by `oprd inspect`, which advises {advice.method}."), ""]
    for name, value in settings.items():
        if name in because:
            lines += ["", *_comment(f"{name}: {because.pop(name)}")]
        elif name == next(iter(run)):
            lines.append("")
        lines.append(yaml.safe_dump({name: value}, width=math.inf).rstrip("\n"))
    rest = [line for name, why in because.items() for line in _comment(f"{name}: {why}")]
    return "\n".join([*lines, *(["", *rest] if rest else [])]) + "\n"


def _comment(text: str) -> list[str]:
    # A line break in a comment would end it.
    return textwrap.wrap(one_line(text), WIDTH, initial_indent="# ", subsequent_indent="# ")
