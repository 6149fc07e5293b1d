"""Two processes that do what tests ask of them, started once: each has TRL to import.

    with TwoProcesses() as run:
        errors = run("training.distributed_step", folder, "2", "")

calls `main` of that module of the tests in both, and gives what it raised in each.
"""

import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from typing import Any

import pytest

from tests.reliability.undone import undo_as_told

COUNT = 2
# A job that takes longer hangs: one process waits for another that does not come.
SECONDS = 240


class TwoProcesses:
    """Both, by torchrun, from the first call on; after one that hangs, new ones."""

    def __init__(self) -> None:
        self._launcher: subprocess.Popen[bytes] | None = None
        self._streams: list[Any] = []

    def __call__(self, module: str, *arguments: object) -> list[str]:
        """Call `main` of a module in both, and return the traceback of each, empty for none.

        Tracebacks are in the order of the processes' ranks.
        """
        if self._launcher is None:
            self._start()
        for stream in self._streams:
            stream.write(json.dumps([module, *map(str, arguments)]) + "\n")
            stream.flush()
        errors: list[str] = []
        try:
            for stream in self._streams:
                errors.append(json.loads(stream.readline()))
        except (OSError, ValueError) as error:
            # Where one died, torchrun ends the other.
            said = "\n".join([*errors, self._ended(hang=isinstance(error, TimeoutError))])
            raise AssertionError(f"{module} did not end in both processes:\n{said}") from error
        return errors

    def _start(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 # closed when both have ended
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(SECONDS)
            self._launcher = subprocess.Popen(
                [
                    *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                    *(f"--nproc_per_node={COUNT}", "-m", "tests.processes"),
                    str(server.getsockname()[1]),
                ],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
            )
            by_rank: dict[int, Any] = {}
            try:
                for _ in range(COUNT):
                    connection, _ = server.accept()
                    connection.settimeout(SECONDS)
                    stream = connection.makefile("rw")
                    connection.close()  # when its stream is
                    # Either may be the first to call.
                    by_rank[int(stream.readline())] = stream
            except (TimeoutError, ValueError) as error:
                raise AssertionError(
                    f"two processes did not start:\n{self._ended(hang=True)}"
                ) from error
            self._streams = [by_rank[rank] for rank in range(COUNT)]

    def _ended(self, *, hang: bool) -> str:
        """The last that both wrote, when they have ended; those that hang are made to."""
        assert self._launcher is not None
        if hang:
            self._launcher.terminate()
        for stream in self._streams:
            stream.close()
        self._launcher.wait(SECONDS)
        self._launcher, self._streams = None, []
        self._log.seek(0)
        with self._log:
            return self._log.read().decode(errors="replace")[-3000:]

    def __enter__(self) -> "TwoProcesses":
        return self

    def __exit__(self, *_: object) -> None:
        if launcher := self._launcher:
            left = self._ended(hang=False)
            assert launcher.returncode == 0, left


def answer(port: str) -> None:
    """In one of them: do what comes until nothing does."""
    undo_as_told(pytest.MonkeyPatch())
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        stream = connection.makefile("rw")
        stream.write(os.environ["RANK"] + "\n")
        stream.flush()
        for line in stream:
            module, *arguments = json.loads(line)
            error = ""
            try:
                importlib.import_module(f"tests.{module}").main(*arguments)
            except Exception:
                error = traceback.format_exc()
            stream.write(json.dumps(error) + "\n")
            stream.flush()


if __name__ == "__main__":
    answer(*sys.argv[1:])
