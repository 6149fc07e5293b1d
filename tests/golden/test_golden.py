import json

import pytest

from tests.golden import runs
from tests.golden.runs import CASES, FILE, machine, observe

EXPECTED = json.loads(FILE.read_text())
SAME_BITS = EXPECTED["machine"] == machine()


def check(found, expected):
    """To the last bit where the machine and the versions are those of the file."""
    if SAME_BITS:
        assert found == expected
        return
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-3)
    assert found["norms"] == pytest.approx(expected["norms"], rel=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_a_seeded_run_gives_the_losses_and_weights_it_always_gave(case, tmp_path):
    check(observe(case, tmp_path), EXPECTED["cases"][case])


def test_two_processes_give_the_losses_and_weights_they_always_gave(tmp_path, two_processes):
    check(runs.two_processes(tmp_path, two_processes), EXPECTED["cases"]["two processes"])
