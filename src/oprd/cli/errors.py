"""Errors that reach a person as one sentence."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

import typer

from oprd.runs.space import disk_problem
from oprd.secrets import masked
from oprd.text import one_line

P = ParamSpec("P")
R = TypeVar("R")

# What code raises on purpose, here or in a library, when what it was given cannot be used.
EXPECTED = (ValueError, OSError, ImportError, FloatingPointError)

# The packages that the hub's library asks the network by.
NETWORK = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}
UNREACHABLE = "the Hugging Face hub, or whatever HF_ENDPOINT names, cannot be reached"
OFFLINE = "Without a network name folders and files, and leave push_to_hub out."

_show_tracebacks = False


class CommandError(Exception):
    """Something that the person at the keyboard can mend."""


def show_tracebacks(show: bool) -> None:
    """Whether expected errors come with their traceback."""
    global _show_tracebacks
    _show_tracebacks = show


@contextmanager
def setting_up() -> Iterator[None]:
    """Take what libraries raise while they read what they were given as the person's to mend.

    Once training runs, the same exceptions out of a library are bugs and keep their traceback.
    """
    try:
        yield
    except EXPECTED as error:
        raise CommandError(str(error)) from error


@contextmanager
def writing(folder: Path, way_on: str) -> Iterator[None]:
    """Take what the machine refuses to write to a folder as the person's to mend.

    Args:
        folder: where everything is written.
        way_on: how to go on with what is there.
    """
    try:
        yield
    except Exception as error:
        if (problem := _refused(error, folder)) is None:
            raise
        raise CommandError(
            f"{str(folder)!r} could not be written to ({problem}): look at the space that is left, "
            f"at the limits on files (`ulimit -f`), and whether the folder is still there. {way_on}"
        ) from error


def _refused(error: Exception, folder: Path) -> str | None:
    """What the operating system says, directly or through a library; None where it is not that."""
    if isinstance(error, OSError) and error.filename is not None:
        place = Path(os.path.abspath(error.filename))
        if place.is_relative_to(os.path.abspath(folder)):
            return f"{error.strerror}: {error.filename}"
    return disk_problem(error)


def one_sentence(command: Callable[P, R]) -> Callable[P, R]:
    """Print expected errors of a command as one line on stderr and exit with code 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except Exception as error:
            if _show_tracebacks:
                raise
            if _is_unreachable(error):
                _fail(CommandError(f"{UNREACHABLE} ({one_line(error)}). {OFFLINE}"))
            if not _is_expected(error):
                raise
            _fail(error)

    return run


def say(text: str) -> None:
    """Print lines on stderr, above a progress bar that may be drawn there."""
    from tqdm import tqdm

    tqdm.write(masked(text), file=sys.stderr)


def _fail(error: Exception) -> NoReturn:
    say(f"oprd: {one_line(error)}")
    raise typer.Exit(1) from error


def _is_unreachable(error: Exception) -> bool:
    """Whether a package of the network's could not connect, or waited for too long."""
    kind = type(error)
    return kind.__module__.split(".")[0] in NETWORK and (
        "Connect" in kind.__name__ or "Timeout" in kind.__name__
    )


def _is_expected(error: Exception) -> bool:
    if isinstance(error, CommandError):
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, EXPECTED) and frame.f_globals["__name__"].startswith("oprd.")
