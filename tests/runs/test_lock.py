import errno
import fcntl
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from oprd.runs import lock
from oprd.runs.lock import LOCK, TAKING, RunLock

HOLD = """
import os, sys, time
from pathlib import Path
from oprd.runs.lock import RunLock
RunLock(Path(sys.argv[1])).acquire()
if sys.argv[2:] and os.fork() == 0:
    time.sleep(30)  # holds on to the file that its parent locked
print(os.getpid(), flush=True)
time.sleep(30)
"""


@pytest.fixture
def other(tmp_path: Path):
    """Starts another process that locks the folder; all of them are killed in the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(tmp_path), *arguments]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        assert process.stdout is not None
        assert int(process.stdout.readline()) == process.pid
        return process

    yield start
    for process in started:
        # Its child may be there without it.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_folder_is_free_again_when_its_run_has_ended(tmp_path: Path):
    with RunLock(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()
    assert not list((tmp_path / "run").iterdir())
    RunLock(tmp_path / "run").release()


def test_a_process_may_lock_its_folder_again(tmp_path: Path):
    with RunLock(tmp_path):
        with RunLock(tmp_path / "." / ""):
            pass
        assert (tmp_path / LOCK).exists()
    assert not (tmp_path / LOCK).exists()


def test_a_second_run_is_refused_and_the_first_one_named(tmp_path: Path, other):
    pid = other().pid
    with pytest.raises(
        OSError, match=rf"^process {pid} on .* trains in .*{tmp_path.name}"
    ) as error:
        RunLock(tmp_path).acquire()
    assert "another --output_dir" in str(error.value) and "delete" not in str(error.value)
    # Nor is the first one's claim touched by it.
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == pid


def test_what_a_killed_run_leaves_stands_in_nobodys_way(tmp_path: Path, other):
    process = other()
    process.kill()
    process.wait()
    assert (tmp_path / LOCK).exists()
    with RunLock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_a_child_that_outlives_a_killed_run_does_not_hold_its_lock(tmp_path: Path, other):
    process = other("with a child")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with (tmp_path / LOCK).open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with RunLock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("child_ends", [False, True])
def test_of_two_that_find_the_lock_of_a_dead_run_one_has_the_folder(
    tmp_path: Path, other, monkeypatch: pytest.MonkeyPatch, child_ends: bool
):
    process = other("with a child")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    taken = []

    def take() -> None:
        with suppress(OSError):
            taken.append(held.enter_context(RunLock(tmp_path)._take()))

    def take_in_between(holder: dict[str, object]) -> bool:
        """Another one comes when the first has seen that the run is dead, and not acted on it."""
        monkeypatch.setattr(lock, "_is_dead", is_dead)
        if child_ends:
            os.killpg(process.pid, signal.SIGKILL)
            while not is_free(tmp_path / LOCK):
                time.sleep(0.01)
        take()
        return is_dead(holder)

    is_dead = lock._is_dead
    monkeypatch.setattr(lock, "_is_dead", take_in_between)
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    with ExitStack() as held:
        take()
        assert len(taken) == 1
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
        assert os.path.samestat(os.fstat(taken[0].fileno()), (tmp_path / LOCK).stat())


def is_free(path: Path) -> bool:
    with path.open() as file:
        return lock.try_lock(file)


def test_one_that_never_comes_to_its_end_is_named_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    with (tmp_path / TAKING).open("a") as stuck:
        assert lock.try_lock(stuck)
        with pytest.raises(OSError, match=f"if there is none, delete {tmp_path / TAKING}"):
            RunLock(tmp_path).acquire()
    # What a kill leaves is free.
    with RunLock(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]


@pytest.mark.parametrize("changed", [{"host": "elsewhere"}, {"namespace": "pid:[1]"}])
def test_of_another_machine_it_is_said_that_its_processes_are_not_seen(
    tmp_path: Path, other, changed
):
    other()
    holder = json.loads((tmp_path / LOCK).read_text())
    (tmp_path / LOCK).write_text(json.dumps({**holder, **changed, "pid": 2**22 + 1}))
    with pytest.raises(OSError, match=re.escape(f"if it does not, delete {tmp_path / LOCK}.")):
        RunLock(tmp_path).acquire()


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)


def test_a_file_system_without_locks_goes_by_who_is_named(tmp_path: Path, other, no_locks):
    process = other()
    with pytest.raises(OSError, match=f"process {process.pid} on"):
        RunLock(tmp_path).acquire()
    process.kill()
    process.wait()
    with RunLock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_the_number_of_an_ended_process_may_be_another_ones(tmp_path: Path, no_locks):
    holder = {**lock._myself(), "started": time.time() - 10_000}
    (tmp_path / LOCK).write_text(json.dumps(holder))
    with RunLock(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_lock_that_nobody_signed_stands_in_nobodys_way(tmp_path: Path, text: str):
    (tmp_path / LOCK).write_text(text)
    with RunLock(tmp_path):
        pass


def _try(folder: str, begin, taken) -> None:
    begin.wait()
    try:
        RunLock(Path(folder)).acquire()
    except OSError:
        return
    with taken.get_lock():
        taken.value += 1
    time.sleep(1)


def test_of_many_that_begin_at_once_one_has_the_folder(tmp_path: Path):
    spawn = multiprocessing.get_context("fork")
    begin, taken = spawn.Event(), spawn.Value("i", 0)
    processes = [spawn.Process(target=_try, args=(str(tmp_path), begin, taken)) for _ in range(8)]
    for process in processes:
        process.start()
    begin.set()
    for process in processes:
        process.join()
    assert taken.value == 1
