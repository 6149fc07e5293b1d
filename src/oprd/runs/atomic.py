"""Files that exist whole or not at all."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Where Linux says what a process is.
STATUS = Path("/proc/self/status")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file to write to, which takes the place of `path` where the block ends without an error.

    By then its bytes are on the disk, and it has the mode that the umask gives. After an error
    nothing of it is left.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        give_usual_mode(partial)
        synchronize(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    synchronize(path.parent)


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """A folder for the block to fill, of which nothing is left after an error.

    Raises:
        FileExistsError: it is there, and not an empty folder.
    """
    is_there = folder.exists()
    if is_there and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{str(folder)!r} is not an empty folder: choose another.")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder)
        if is_there:
            folder.mkdir()
        raise


def synchronize(path: Path) -> None:
    """Have the operating system bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def give_usual_mode(*files: Path) -> None:
    """Let files have the mode of new ones; safetensors makes its own for their owner alone."""
    mask = usual_mask()
    for file in files:
        file.chmod(0o666 & ~mask)


def usual_mask() -> int:
    """The umask of this process, which other threads use meanwhile: to ask for it would change it.

    Where the operating system does not tell it, that of the import.
    """
    mask = _told_mask()
    return _MASK_AT_IMPORT if mask is None else mask


def _told_mask() -> int | None:
    try:
        found = re.search(r"^Umask:\s*([0-7]+)$", STATUS.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1], 8) if found else None


def _asked_mask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


_MASK_AT_IMPORT = 0o077 if _told_mask() is not None else _asked_mask()
