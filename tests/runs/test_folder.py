"""What a run's folder says of how far the run is, by its log and by who holds its lock."""

import json
import os

import pytest

from oprd.runs.folder import read_run
from oprd.runs.lock import LOCK, RunLock, _myself
from oprd.runs.samples import POSITIONS, read_positions
from tests.reports.made import line, write_metrics, write_run

END = {"step": 4, "train_runtime": 60.0}
LINES = [line(step) for step in range(1, 5)]


@pytest.fixture
def folder(tmp_path):
    """A run of four steps of eight, whose log says nothing of an end."""
    made = write_run(tmp_path / "run", steps=8)
    write_metrics(made, LINES)
    return made


def sign(folder, **changed):
    (folder / LOCK).write_text(json.dumps({**_myself(), **changed}))


def test_a_run_whose_process_lives_is_running_however_old_its_log_is(folder):
    os.utime(folder / "metrics.jsonl", (0, 0))
    with RunLock(folder):
        run = read_run(folder)
    assert (run.state, run.note) == ("running", "At step 4 of 8.")


@pytest.mark.parametrize("killed", [True, False])
def test_a_run_without_a_process_was_cut_off_however_young_its_log_is(folder, killed):
    if killed:
        sign(folder, started=1.0)
    assert read_run(folder).state == "cut off"


@pytest.mark.parametrize("age, state", [("young", "running"), ("old", "cut off")])
def test_of_a_run_on_another_machine_its_log_decides(folder, age, state):
    sign(folder, host="elsewhere")
    if age == "old":
        os.utime(folder / "metrics.jsonl", (0, 0))
    assert read_run(folder).state == state


@pytest.mark.parametrize("further", [0, 2])
def test_a_run_that_is_gone_on_with_is_running_after_an_earlier_end(folder, further):
    write_metrics(folder, [*LINES, END, *(line(5 + n) for n in range(further))])
    with RunLock(folder):
        assert read_run(folder).state == "running"
    assert read_run(folder).state == ("cut off" if further else "finished")


@pytest.mark.parametrize("last", [END, {"step": 4, "eval/t/avg@1": 0.5}])
def test_a_run_that_ended_is_finished_whatever_is_logged_after_its_losses(folder, last):
    write_metrics(folder, [*LINES, END, last])
    run = read_run(folder)
    assert run.state == "finished" and "before its last step" in run.note


@pytest.mark.parametrize("odd", [None, "x", True, [1]])
def test_a_curve_that_holds_no_number_is_left_out(folder, odd):
    good = (folder / POSITIONS).read_text().splitlines()
    assert len(read_positions(folder)) == len(good) == 2
    for name in ("position", "cosine", "count"):
        bad = json.loads(good[0])
        bad[name][0] = odd
        (folder / POSITIONS).write_text(json.dumps(bad) + "\n" + good[1] + "\n")
        assert len(read_positions(folder)) == 1
