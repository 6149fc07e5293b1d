"""Lines of one picture can be told apart, in colour and without."""

import re
from itertools import pairwise

from oprd.reports.figure import DASHES, SERIES, key_line, line_style
from oprd.reports.page import html
from oprd.reports.told import read
from oprd.runs.folder import read_run
from tests.reports.made import write_run


def test_no_two_of_the_first_28_lines_look_alike():
    styles = [tuple(map(str, line_style(number).values())) for number in range(28)]
    assert len(set(styles)) == len(SERIES) * len(DASHES) == 28
    # Neighbours differ without colour too.
    dashes = [str(line_style(number)["linestyle"]) for number in range(28)]
    assert all(a != b for a, b in pairwise(dashes))


def test_the_key_of_a_page_is_drawn_as_its_lines_are(tmp_path):
    runs = [read_run(write_run(tmp_path / str(n), steps=2)) for n in range(8)]
    keys = re.findall(
        r'stroke="(var\(--s\d\))" stroke-width="2.5" stroke-dasharray="([^"]*)"', html(read(runs))
    )
    assert set(keys) == {key_line(number) for number in range(8)}
    assert len(set(keys)) == 8
