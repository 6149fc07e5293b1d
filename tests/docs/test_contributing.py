"""CONTRIBUTING.md speaks of the rooms, files and lines that there are."""

import re
from pathlib import Path

import pytest

from tests.invariance.test_house import GROUND, ROOMS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
TABLE = [
    [cell.strip() for cell in row.split("|")[1:-1]]
    for row in PAGE.splitlines()
    if row.startswith("| `")
]


def test_the_table_of_rooms_is_the_one_that_imports_are_held_to():
    shown = {}
    for room, _, imports in TABLE:
        if found := re.fullmatch(r"`src/oprd/(\w+)`", room):
            names = re.findall(r"`([\w/.]+)`", imports)
            shown[found[1]] = {name.removesuffix(".py").replace("/", ".") for name in names}
    assert shown == {room: places - GROUND for room, places in ROOMS.items() if room not in GROUND}


def test_every_place_that_the_page_names_is_there():
    named = set(re.findall(r"`((?:src|tests|docs|recipes|lab|benchmarks)\b[\w/.]*)`", PAGE))
    assert len(named) > 25
    assert not {name for name in named if not (ROOT / name).exists()}


@pytest.mark.parametrize("line", re.findall(r"^(.+)$", PAGE.split("```")[1][7:], re.MULTILINE))
def test_the_worked_example_is_what_the_file_says(line):
    assert line in (ROOT / "src/oprd/core/states/gram.py").read_text().splitlines()
