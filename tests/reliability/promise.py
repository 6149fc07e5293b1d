"""What a promise is, and what stands in the place of code when it is undone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Proof:
    """Shows that a test can fail.

    Attributes:
        red: the test, or the case of one, that fails when the code is undone.
        undone: what stands in the place of functions and values, by their dotted names.
        minutes: how long that takes, where it is no matter of seconds.
        error: the kind of exception by which it fails, where that is another than a test's own, of
            what it found or of an error that did not come; "*" for any.
    """

    red: str
    undone: Mapping[str, Any]
    minutes: float = 0
    error: str = ""

    @property
    def node(self) -> str:
        """Of pytest."""
        return f"tests/{self.red}"


@dataclass(frozen=True)
class Promise:
    """What holds whatever happens, and the tests that hold it.

    Attributes:
        fault: what happens, or what is given.
        promise: what holds then.
        tests: functions by file, below `tests/`; a test of two processes takes both cores.
        proofs: that they can fail.
        here: where it was measured, and where not.
    """

    fault: str
    promise: str
    tests: tuple[str, ...]
    proofs: tuple[Proof, ...]
    here: str = "yes"

    @property
    def nodes(self) -> tuple[str, ...]:
        """Of pytest."""
        return tuple(f"tests/{test}" for test in self.tests)


def nothing(*_: Any, **__: Any) -> None:
    """In the place of what checks, or acts."""
