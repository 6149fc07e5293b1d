import multiprocessing
import time

import psutil
import pytest

from tests.lab.left import start_queues

WAIT_SECONDS = 120


def soon(happens):
    until = time.monotonic() + WAIT_SECONDS
    while not happens():
        assert time.monotonic() < until
        time.sleep(0.05)


def ended(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.slow
def test_workers_end_with_the_queue_that_started_them_though_that_was_killed(tmp_path):
    files = [tmp_path / name for name in ("run", "report")]
    queues = multiprocessing.get_context("spawn").Process(target=start_queues, args=(tmp_path,))
    queues.start()
    try:
        soon(lambda: all(file.exists() and file.read_text() for file in files))
        workers = [psutil.Process(int(file.read_text().split()[0])) for file in files]
        assert not any(map(ended, workers))
    finally:
        queues.kill()
        queues.join()
    soon(lambda: all(map(ended, workers)))
