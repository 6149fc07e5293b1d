import re

import pytest

from oprd.evaluation.result import told_gap
from tests.evaluation.samples import evaluation


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (([1, 1], [1, 1], [1, 0]), r"not known \(there is no gap to close: .*\)"),
        (([1], [0], [1]), r"not known \(.*\)"),
        (([1, 1, 1], [0, 0, 0], [1, 1, 0]), r"67% \[.*\]"),
    ],
)
def test_where_there_is_no_share_of_a_gap_it_is_said_why(verdicts, said):
    found = [
        evaluation({str(n): [bool(right)] for n, right in enumerate(row)}, model=str(place))
        for place, row in enumerate(verdicts)
    ]
    assert re.fullmatch(said, told_gap(*found))
