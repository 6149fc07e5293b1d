"""The page on settings has every one that is ours, and none that is not."""

import dataclasses
import re
from pathlib import Path

import pytest
from trl import DistillationConfig

from oprd import OPRDConfig
from oprd.core.layers import PAIRINGS
from oprd.core.objective import OUTPUT_LOSSES, STATE_LOSSES
from oprd.settings.stages import STAGE_SETTINGS

DOCS = Path(__file__).parents[2] / "docs"
PAGE, BRIDGES = (DOCS / "settings.md").read_text(), (DOCS / "bridge.md").read_text()


def test_every_setting_of_ours_has_a_row():
    trl = {field.name for field in dataclasses.fields(DistillationConfig)}
    ours = {field.name for field in dataclasses.fields(OPRDConfig)} - trl
    first_cells = [row.split("|")[1] for row in PAGE.splitlines() if row.startswith("| `")]
    shown = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}
    assert shown == ours | {"learning_rate"}


@pytest.mark.parametrize(
    ("setting", "table"), [("state_loss", STATE_LOSSES), ("output_loss", OUTPUT_LOSSES)]
)
def test_every_loss_has_a_row_with_its_parameters(setting, table):
    rows = PAGE.partition(f"| `{setting}` | parameters |")[2].partition("\n\n")[0].splitlines()[2:]
    shown = {cells[1].strip(): cells[2] for cells in (row.split("|") for row in rows)}
    assert list(shown) == list(table)
    for name, kind in table.items():
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in shown[name]


def test_every_layer_pairing_has_a_row():
    rows = PAGE.partition("| `layer_pairing` | the teacher layer")[2].partition("\n\n")[0]
    shown = [row.split("|")[1].strip() for row in rows.splitlines()[2:]]
    assert shown == list(PAIRINGS)


def test_the_page_on_bridges_names_what_a_stage_may_set():
    sentence = BRIDGES.partition("Each stage takes")[2].partition(";")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == set(STAGE_SETTINGS)
