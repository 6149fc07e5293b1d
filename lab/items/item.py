"""What a figure or a table of the lab is."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lab.expectations import Expectation
from lab.runs import Run


@dataclass(frozen=True)
class Item(ABC):
    """A figure or table.

    Attributes:
        name: of its files in `lab/results`.
        title: what of the paper it is.
        expects: what is claimed of it, and what would confirm it.
        report_minutes: what its report takes when all runs are there, about.
        alone: whether its report measures time, so that nothing else should run.
    """

    name: str
    title: str
    expects: tuple[Expectation, ...] = field(default=(), kw_only=True, hash=False)
    report_minutes: ClassVar[float]
    alone: ClassVar[bool] = False

    def plan(self, quick: bool) -> list[Run]:
        """The runs that it needs; unless it says otherwise none."""
        return []

    @abstractmethod
    def report(self, quick: bool) -> None:
        """Write what they found, and a picture of it."""

    @abstractmethod
    def table(self, found: Mapping[str, Any]) -> list[str]:
        """Findings, as they were written, as lines of Markdown."""

    @abstractmethod
    def verdicts(self, found: Mapping[str, Any]) -> dict[str, bool]:
        """The claims that findings settle, which quick ones have to find again."""
