"""Room for what a run saves: how much there is, and what a machine says that has none."""

import errno
import os
import resource
import shutil
from pathlib import Path
from typing import NamedTuple

# What a disk answers, whatever was asked of it.
OF_DISKS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)


class Need(NamedTuple):
    """Bytes that a save takes, as far as they are known before.

    Attributes:
        all: of all files together.
        largest: of the largest file.
    """

    all: int
    largest: int

    def __add__(self, other: "Need") -> "Need":  # pyright: ignore[reportIncompatibleMethodOverride] # no tuples joined
        """Both saves."""
        return Need(self.all + other.all, max(self.largest, other.largest))


def free_bytes(folder: Path) -> int:
    """Bytes that may be written where a folder is, or will be made."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    return shutil.disk_usage(there).free


def largest_file() -> int | None:
    """Bytes that a file may grow to, `ulimit -f`; None where nothing limits it."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def shortage(folder: Path, need: Need, freed: int = 0) -> str | None:
    """What there is too little of for a save, None where it fits.

    Args:
        folder: that is written.
        need: of the save.
        freed: bytes that are deleted before it.
    """
    free, limit = free_bytes(folder) + freed, largest_file()
    if need.all > free:
        return f"{folder} needs about {need.all:,} bytes, and {free:,} are free"
    if limit is not None and need.largest > limit:
        return (
            f"{folder} needs a file of about {need.largest:,} bytes, and files may have {limit:,}"
        )
    return None


def disk_problem(error: BaseException) -> str | None:
    """What a disk answered, directly or through a library; None for another error."""
    if isinstance(error, OSError):
        return (error.strerror or os.strerror(error.errno)) if error.errno in OF_DISKS else None
    # Safetensors and PyTorch write by themselves.
    writes = type(error).__name__ == "SafetensorError" and "I/O error" in str(error)
    writes |= isinstance(error, RuntimeError) and "inline_container" in str(error)
    return str(error) if writes else None
