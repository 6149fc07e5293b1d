import json

import pytest

from tests.golden import runs, test_golden
from tests.golden.runs import CASES, FILE, machine, observe

EXPECTED = json.loads(FILE.read_text())
SAME_BITS = EXPECTED["machine"] == machine()


def check(found, expected):
    """To the last bit where the machine and the versions are those of the file."""
    if SAME_BITS:
        assert found == expected
        return
    for name in ("losses", "norms", "changes"):
        assert found[name] == pytest.approx(expected[name], rel=1e-3), name


@pytest.mark.parametrize("case", CASES)
def test_a_seeded_run_gives_the_losses_and_weights_it_always_gave(case, tmp_path):
    check(observe(case, tmp_path), EXPECTED["cases"][case])


def test_two_processes_give_the_losses_and_weights_they_always_gave(tmp_path, two_processes):
    check(runs.two_processes(tmp_path, two_processes), EXPECTED["cases"]["two processes"])


def test_on_another_machine_a_run_that_moves_otherwise_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(test_golden, "SAME_BITS", False)
    expected = EXPECTED["cases"]["oprd"]
    found = observe("oprd", tmp_path / "same")
    check(found, expected)
    monkeypatch.setitem(CASES, "oprd", {"learning_rate": 0.98e-3})
    other = observe("oprd", tmp_path / "other")
    # The weights themselves are the same to three places.
    with pytest.raises(AssertionError, match="changes"):
        check(other | {"losses": found["losses"]}, expected)
