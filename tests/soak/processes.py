"""The processes of one run, begun and ended as a machine does it."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
# How long the other processes may take to notice that one has ended.
PATIENCE = 120


class Processes:
    """A run's processes.

    Args:
        count: how many share the run.
        arguments: of `tests.soak.worker`.
        log: to which they write what they say.
    """

    def __init__(self, count: int, arguments: list[str], log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
        world = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        everywhere = {**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
        self._log = log.open("ab")
        self._all = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.soak.worker", *arguments],
                cwd=ROOT,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env={**everywhere, **({**world, **ranks(rank)} if count > 1 else {})},
            )
            for rank in range(count)
        ]

    @property
    def ended(self) -> bool:
        """Whether one of them has."""
        return any(process.poll() is not None for process in self._all)

    def kill(self) -> None:
        """End all of them without a word."""
        for process in self._all:
            process.kill()

    def ask(self) -> None:
        """Ask one of them to end after its step."""
        self._all[-1].send_signal(signal.SIGTERM)

    def limit_files(self, size: int) -> None:
        """Let no file grow beyond so many bytes from here on, as on a disk that is full."""
        for process in self._all:
            hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, hard))

    def wait(self) -> list[int]:
        """Exit codes; where one has ended, others that wait for it are ended too."""
        while not self.ended:
            time.sleep(0.05)
        until = time.monotonic() + PATIENCE
        while any(p.poll() is None for p in self._all) and time.monotonic() < until:
            time.sleep(0.05)
        self.kill()
        codes = [process.wait() for process in self._all]
        self._log.close()
        return codes


def ranks(rank: int) -> dict[str, str]:
    """What a launcher tells a process."""
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}
