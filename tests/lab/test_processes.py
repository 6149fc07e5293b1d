import multiprocessing
import time

import psutil

from tests.lab.left import start_another

WAIT_SECONDS = 30


def soon(happens):
    until = time.monotonic() + WAIT_SECONDS
    while not happens():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_worker_ends_with_the_process_that_started_it_though_that_was_killed(tmp_path):
    file = tmp_path / "process"
    parent = multiprocessing.get_context("spawn").Process(target=start_another, args=(str(file),))
    parent.start()
    soon(lambda: file.exists() and file.read_text())
    worker = psutil.Process(int(file.read_text()))
    assert worker.is_running()
    parent.kill()
    parent.join()
    soon(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
