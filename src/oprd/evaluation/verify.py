"""A pool of math-verify processes, usable from a script, from threads and from any process.

The workers are plain subprocesses: `multiprocessing` would run the caller's main module again and
is forbidden to daemons; math-verify's own time limit is a signal, which only a main thread gets.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

from oprd.extras import require

Status = Literal[
    "correct",
    "wrong",
    "no_box",
    "unterminated",
    "parse_error",
    "empty",
    "truncated",
    "timeout",
    "grader_error",
]

# Processor time. Hard real answers take a tenth of it.
TIME_LIMIT = 2.0
# A worker imports sympy before it is ready, on a machine that may be busy.
START_LIMIT = 120.0
# The worker keeps its own time; this wall time is for one that cannot, on a busy machine.
PATIENCE = 60.0
WORKER = Path(__file__).with_name("math_worker.py")


class WorkerDied(RuntimeError):
    """A worker went away, or had to be killed, without an answer."""


class Worker:
    """One math-verify process."""

    def __init__(self) -> None:
        if find_spec("math_verify") is None:
            require("math_verify", "math", "grading formulas")
        self._process = subprocess.Popen(
            # -P: the modules beside the script must not shadow anyone's imports.
            [sys.executable, "-P", str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            # Its own group, so that a kill takes its child along.
            start_new_session=True,
        )
        try:
            self._read(START_LIMIT)
        except WorkerDied as error:
            raise OSError(
                f"the grading process did not start: run `{sys.executable} {WORKER}` to see why."
            ) from error

    def ask(self, gold: str, answer: str, seconds: float) -> str:
        """The status of one answer.

        Raises:
            WorkerDied: there is none.
        """
        pipe = self._process.stdin
        assert pipe is not None
        try:
            pipe.write(json.dumps([gold, answer, seconds]).encode() + b"\n")
            pipe.flush()
        except OSError as error:
            raise WorkerDied from error
        return self._read(seconds + PATIENCE)

    def kill(self) -> None:
        """End the process and its child, and wait for it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    # What was left in the buffer has no reader any more.
                    continue
        self._process.wait()

    def _read(self, seconds: float) -> str:
        pipe = self._process.stdout
        assert pipe is not None
        guard = threading.Timer(seconds, self._process.kill)
        guard.daemon = True
        guard.start()
        try:
            line = pipe.readline()
        finally:
            guard.cancel()
        if not line.endswith(b"\n"):
            raise WorkerDied
        return line.decode().strip()


class Pool:
    """As many workers as there are callers at once, up to `size`."""

    def __init__(self, size: int) -> None:
        self._idle: list[Worker] = []
        self._slots = threading.BoundedSemaphore(size)

    def ask(self, gold: str, answer: str, seconds: float) -> str:
        """The status of one answer; a second worker is asked where the first one died."""
        with self._slots:
            for _ in range(2):
                worker = self._idle.pop() if self._idle else Worker()
                try:
                    status = worker.ask(gold, answer, seconds)
                except WorkerDied:
                    worker.kill()
                    continue
                except BaseException:
                    # An interrupted caller leaves an answer in the pipe that the next would get.
                    worker.kill()
                    raise
                self._idle.append(worker)
                return status
        return "parse_error"

    def close(self) -> None:
        """End every worker."""
        while self._idle:
            self._idle.pop().kill()


_pool = Pool(min(4, os.cpu_count() or 1))
# The workers of the process this one was forked from: neither used nor ended here.
_inherited: list[Pool] = []


@lru_cache(maxsize=65_536)
def verify(gold: str, answer: str, seconds: float = TIME_LIMIT) -> Status:
    """Compare an answer with the gold answer by math-verify, gold first.

    Args:
        gold: a formula.
        answer: a formula.
        seconds: the limit of processor time.

    Returns:
        `"correct"`, `"wrong"`, `"parse_error"` (a crash included) or `"timeout"`.

    Raises:
        ImportError: math-verify is not installed.
        OSError: its process does not start.
    """
    return cast(Status, _pool.ask(gold, answer, seconds))


def _after_fork() -> None:
    global _pool
    _inherited.append(_pool)
    _pool = Pool(min(4, os.cpu_count() or 1))


def _at_exit() -> None:
    _pool.close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
