"""The soak at its smallest; `make soak` is the whole."""

import pytest

from tests.soak.soak import growth, leave_alone, same_student, soak


@pytest.mark.slow(minutes=4)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("processes", [1, 2])
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path, processes):
    run = {"steps": 100, "save_steps": 5, "processes": processes}
    leave_alone(tmp_path / "alone", **run)
    found = soak(tmp_path / "disturbed", **run, kills=3, seed=processes)
    assert found.faults["kill in a save"] >= 1 and found.kills >= 3
    assert same_student(tmp_path / "alone", tmp_path / "disturbed")
    assert growth(tmp_path / "alone") < 20  # so short a run still takes up what it needs
