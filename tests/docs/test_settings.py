"""The page on settings has every one that is ours, and none that is not."""

import dataclasses
import re
from pathlib import Path

from trl import DistillationConfig

from oprd import OPRDConfig

PAGE = (Path(__file__).parents[2] / "docs/settings.md").read_text()


def test_every_setting_of_ours_has_a_row():
    trl = {field.name for field in dataclasses.fields(DistillationConfig)}
    ours = {field.name for field in dataclasses.fields(OPRDConfig)} - trl
    first_cells = [row.split("|")[1] for row in PAGE.splitlines() if row.startswith("| `")]
    shown = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}
    assert shown == ours
