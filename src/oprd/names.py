"""Names that a user gives: what they stand for, and whether they can be used at all."""

import difflib
import os
import reprlib
import textwrap
from contextlib import suppress
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

# What common file systems and Linux accept, in bytes.
MAX_COMPONENT = 255
MAX_PATH = 4096


def locate(name: str, what: str, suffixes: tuple[str, ...] = ()) -> Path | None:
    """The local file or folder that a name stands for, or None where it can be a hub repository.

    Args:
        name: a path, or a name such as `owner/name`.
        what: what it names, for messages: "dataset", "student".
        suffixes: endings that only a file's name has.

    Raises:
        FileNotFoundError: the name can only be a path, and nothing is there.
        ValueError: the name can be neither a path nor the name of a hub repository.
    """
    check_name(name, what)
    path = Path(os.path.expanduser(name))
    if path.exists():
        return path
    looks_local = name.startswith((".", "/", "~")) or name.lower().endswith(suffixes)
    if looks_local or name.count("/") > 1:
        raise FileNotFoundError(f"{what} {name!r}: there is no such file or folder{_close(path)}.")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(
            f"{what} {reprlib.repr(name)} is no file or folder here, and no possible name on the "
            "Hugging Face hub (letters, digits, '-', '_', '.', one '/', at most 96)."
        ) from error
    return None


def nowhere(name: str, what: str, reason: object) -> FileNotFoundError:
    """What is neither here nor, as far as it can be asked, on the hub."""
    said = textwrap.shorten(str(reason), 200, placeholder=" …")
    return FileNotFoundError(
        f"{what} {name!r}: there is no such file or folder here{_close(Path(name))}, and it cannot "
        f"be had from the Hugging Face hub ({said.rstrip('.')})."
    )


def _close(path: Path) -> str:
    """The name beside a missing one that it may be a misprint of."""
    with suppress(OSError):
        close = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1)
        if close:
            return f" (did you mean {str(path.parent / close[0])!r}?)"
    return ""


def check_name(name: str, what: str) -> None:
    """Refuse a name that no file system takes.

    Raises:
        ValueError: the name is not text, is empty, holds a NUL, or is too long.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{what} must be a name or a path, got {name!r}.")
    if "\0" in name:
        raise ValueError(f"{what} {reprlib.repr(name)} holds a NUL character.")
    encoded = os.fsencode(name)
    longest = max(len(part) for part in encoded.split(b"/"))
    if longest > MAX_COMPONENT:
        raise ValueError(
            f"{what} {reprlib.repr(name)} has a part of {longest} bytes; "
            f"file systems take at most {MAX_COMPONENT}."
        )
    if len(encoded) > MAX_PATH:
        raise ValueError(
            f"{what} {reprlib.repr(name)} is {len(encoded)} bytes long, at most {MAX_PATH} are."
        )
