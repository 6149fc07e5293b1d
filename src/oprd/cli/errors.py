"""Errors that reach a person as one sentence."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import NoReturn, ParamSpec, TypeVar

import typer

from oprd.text import one_line

P = ParamSpec("P")
R = TypeVar("R")

# What code raises on purpose, here or in a library, when what it was given cannot be used.
EXPECTED = (ValueError, OSError, ImportError, FloatingPointError)

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


def one_sentence(command: Callable[P, R]) -> Callable[P, R]:
    """Print expected errors of a command as one line on stderr and exit with code 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except Exception as error:
            if _show_tracebacks or not _is_expected(error):
                raise
            _fail(error)

    return run


def _fail(error: Exception) -> NoReturn:
    typer.echo(f"oprd: {one_line(error)}", err=True)
    raise typer.Exit(1) from error


def _is_expected(error: Exception) -> bool:
    if isinstance(error, CommandError):
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, EXPECTED) and frame.f_globals["__name__"].startswith("oprd.")
