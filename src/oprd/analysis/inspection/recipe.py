"""Advice as a file that `oprd train --config` runs, with the reasons beside its settings."""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

from oprd.analysis.inspection.advice import Advice
from oprd.text import one_line

WIDTH = 96
# What a first run takes, on one device.
RUN = {
    "max_steps": 200,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "logging_steps": 1,
    "report_to": "none",
}


def recipe(advice: Advice, places: Mapping[str, Any]) -> str:
    """The text of the file.

    Args:
        advice: what to train with.
        places: models, prompts, output directory, and how prompts and rollouts are read and drawn,
            as settings of `oprd train`.
    """
    because = {reason.setting: reason.because for reason in advice.reasons}
    settings = {**places, **advice.settings, **RUN}
    lines = [*_comment(f"Written by `oprd inspect`, which advises {advice.method}."), ""]
    for name, value in settings.items():
        if name in because:
            lines += ["", *_comment(f"{name}: {because.pop(name)}")]
        elif name == next(iter(RUN)):
            lines.append("")
        lines.append(yaml.safe_dump({name: value}, width=math.inf).rstrip("\n"))
    rest = [line for name, why in because.items() for line in _comment(f"{name}: {why}")]
    return "\n".join([*lines, *(["", *rest] if rest else [])]) + "\n"


def _comment(text: str) -> list[str]:
    # A line break in a comment would end it.
    return textwrap.wrap(one_line(text), WIDTH, initial_indent="# ", subsequent_indent="# ")
