"""One run at a time in a folder.

The operating system gives a lock back when its holder dies, so that no killed run stands in the way
of the next. The file says who holds it, for people, and for file systems that know no locks.
"""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, Self

import psutil

from oprd.text import parse_json

# Of names that are not uploaded with a run's folder; the other one is there while one is taken.
LOCK, TAKING = "_run.lock", "_run.taking"
# How long another process may take to do so, in seconds.
PATIENCE = 10.0
# What file systems answer that have no locks.
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)

# Of a process that trains in a folder; one of another machine is not seen.
Holder = Literal["alive", "dead", "not seen"]


def try_lock(file: IO[Any]) -> bool:
    """Lock an open file against other processes; whether no other one has it.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def holder(folder: Path) -> Holder | None:
    """How the process fares that has a run's folder locked, None where none has."""
    path = folder / LOCK
    found = _holder(path, wait=path.exists())
    if found is None:
        return None
    if not _is_seen(found):
        return "not seen"
    return "dead" if _is_dead(found) else "alive"


class RunLock:
    """A folder that this process alone trains in.

    Within a process a folder may be locked several times; the last one to let go frees it.

    Args:
        folder: of the run.
    """

    # By folder: the open file, and how many hold it.
    _held: dict[Path, tuple[IO[str], int]] = {}  # noqa: RUF012 # of the process, not of a lock

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._mine = False

    def acquire(self) -> None:
        """Lock the folder, which is made where it is not there.

        Raises:
            OSError: another process has it; the message names it.
        """
        if self._mine:
            return
        held = self._held.get(self._folder)
        file, count = held if held else (self._take(), 0)
        self._held[self._folder] = file, count + 1
        self._mine = True

    def release(self) -> None:
        """Let the folder go; nothing where it was not locked."""
        if not self._mine:
            return
        self._mine = False
        file, count = self._held.pop(self._folder)
        if count > 1:
            self._held[self._folder] = file, count - 1
            return
        # While it is still locked: nobody else can have it by then.
        (self._folder / LOCK).unlink(missing_ok=True)
        file.close()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _take(self) -> IO[str]:
        self._folder.mkdir(parents=True, exist_ok=True)
        # What was looked at stays as it is until it is taken, or taken away.
        with _alone(self._folder / TAKING):
            return self._take_alone(self._folder / LOCK)

    def _take_alone(self, path: Path) -> IO[str]:
        while True:
            file = path.open("a+")
            try:
                if self._is_free(file, path):
                    if _is_at(file, path):
                        file.truncate(0)
                        file.write(json.dumps(_myself()) + "\n")
                        file.flush()
                        return file
                else:
                    # What a dead process started may hold on to its file.
                    path.unlink(missing_ok=True)
            except BaseException:
                file.close()
                raise
            file.close()

    def _is_free(self, file: IO[str], path: Path) -> bool:
        """Whether the file is locked by this process; not where one that is dead still has it."""
        try:
            if try_lock(file):
                return True
            holder, has_locks = _holder(path, wait=True), True
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            holder, has_locks = _holder(path), False
            if holder is None:
                return True
        if holder is not None and _is_dead(holder):
            return not has_locks
        raise OSError(self._taken(holder))

    def _taken(self, holder: dict[str, Any] | None) -> str:
        who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
        text = (
            f"{who} trains in {str(self._folder)!r}: wait until it has ended, or choose another "
            "--output_dir."
        )
        if holder is None or not _is_seen(holder):
            path = self._folder / LOCK
            text += (
                f" Whether it still runs cannot be seen from here: if it does not, delete {path}."
            )
        return text


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time, where the file system has locks, by a file that is there meanwhile.

    Raises:
        OSError: another process does not come to its end.
    """
    file = _wait_for(path)
    try:
        yield
    finally:
        # Whoever waits for it sees that it is gone, also where a child of this process keeps it.
        path.unlink(missing_ok=True)
        file.close()


def _wait_for(path: Path) -> IO[str]:
    end = time.monotonic() + PATIENCE
    while True:
        file = path.open("a")
        try:
            if try_lock(file) and _is_at(file, path):
                return file
        except OSError as error:
            if error.errno in WITHOUT_LOCKS:
                return file
            file.close()
            raise
        file.close()
        if time.monotonic() > end:
            raise OSError(
                f"another process has been about to train in {str(path.parent)!r} for "
                f"{PATIENCE:g} seconds: wait until it has begun, or, if there is none, delete "
                f"{path}."
            )
        time.sleep(0.02)


def _myself() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "namespace": _namespace(),
        "started": psutil.Process().create_time(),
    }


def _namespace() -> str | None:
    """Among which processes numbers are given; containers may share the name of their machine."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _holder(path: Path, *, wait: bool = False) -> dict[str, Any] | None:
    """Who wrote a lock's file; one that has only just made it may be about to."""
    for _ in range(10 if wait else 1):
        try:
            found = parse_json(path.read_bytes())
            if isinstance(found, dict) and found.keys() >= {"pid", "host", "started"}:
                return found
        except (OSError, ValueError):
            pass
        if wait:
            time.sleep(0.02)
    return None


def _is_seen(holder: dict[str, Any]) -> bool:
    """Whether this machine knows which of the holder's processes run."""
    return holder["host"] == socket.gethostname() and holder.get("namespace") == _namespace()


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether a process of this machine has ended; of others that is not known."""
    if not _is_seen(holder):
        return False
    try:
        process = psutil.Process(int(holder["pid"]))
        # A number is given to another process later on.
        other = abs(process.create_time() - float(holder["started"])) > 1
        return other or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, ValueError, TypeError, OverflowError):
        return False


def _is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file is still the one at its path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
