"""What the paper and others say, written so that findings can contradict it.

An item's `expects` are there before its runs are; `python -m lab verdicts` grades them from the
JSON that the runs left.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from lab.differences import areas
from lab.results import Estimate

Found = Mapping[str, Any]
Measure = Literal["accuracy", "best", "distinct_4", "length", "area"]
MEASURES: dict[Measure, str] = {
    "accuracy": "accuracy at the end",
    "best": "share of problems that a sample solves",
    "distinct_4": "share of different 4-grams",
    "length": "response length",
    "area": "accuracy over the way",
}


class Verdict(StrEnum):
    """What findings say of an expectation."""

    CONFIRMED = "confirmed"
    NOT_CONFIRMED = "not confirmed"
    NOT_TESTED = "not tested"


@dataclass(frozen=True)
class Judged:
    """A verdict, and the figures or the reason behind it."""

    verdict: Verdict
    why: str

    @classmethod
    def of(cls, holds: bool, why: str) -> "Judged":
        """Confirmed where it holds."""
        return cls(Verdict.CONFIRMED if holds else Verdict.NOT_CONFIRMED, why)


class Bar(ABC):
    """What counts as confirmed; `str` says it."""

    @abstractmethod
    def judge(self, found: Found) -> Judged:
        """Whether an item's findings clear it.

        Raises:
            KeyError: they lack what it is about.
        """


@dataclass(frozen=True)
class Above(Bar):
    """One method's measure is higher than another's, by the whole 95% interval over seeds.

    Attributes:
        first: the method that is held to be higher.
        second: the other one.
        measure: of what.
        by: how much higher at least: points of a share, or tokens.
    """

    first: str
    second: str
    measure: Measure = "accuracy"
    by: float = 0.0

    def __str__(self) -> str:
        """What counts as confirmed."""
        more = f"more than {self.by:g} above" if self.by > 0 else "above"
        if self.by < 0:
            more = f"no more than {-self.by:g} below"
        return f"{MEASURES[self.measure]}: {self.first} {more} {self.second}"

    def judge(self, found: Found) -> Judged:
        """By the difference paired by seed."""
        pairs = zip(
            *(_scores(found, m, self.measure) for m in (self.first, self.second)), strict=True
        )
        found_more = Estimate.of(a - b for a, b in pairs)
        of_shares = self.measure != "length"
        low = _low(found_more) * (100 if of_shares else 1)
        why = f"{found_more.points()} points" if of_shares else f"{found_more.plain()} tokens"
        return Judged.of(low > self.by, why)


@dataclass(frozen=True)
class GapClosed(Bar):
    """A method closes a share of the gap between student and teacher, by the whole interval.

    Attributes:
        method: which.
        share: of the gap; above 1 is past the teacher.
    """

    method: str
    share: float

    def __str__(self) -> str:
        """What counts as confirmed."""
        if self.share == 1:
            return f"{self.method} ends above its teacher"
        if self.share == 0:
            return f"{self.method} ends above where it began"
        return f"{self.method} closes at least {self.share:.0%} of the gap to its teacher"

    def judge(self, found: Found) -> Judged:
        """By the accuracy at the end, one a seed."""
        before, best = (found[model]["accuracy"] for model in ("student", "teacher"))
        bar = before + self.share * (best - before)
        ends = Estimate.of(_scores(found, self.method, "accuracy"))
        why = f"{ends.percent()}, from {before:.1%}, teacher {best:.1%}"
        return Judged.of(_low(ends) > bar, why)


@dataclass(frozen=True)
class ShareOfGain(Bar):
    """A method gains a share of what another one gains, by the whole interval.

    Attributes:
        method: which.
        whole: the other one.
        share: of its gain.
    """

    method: str
    whole: str
    share: float

    def __str__(self) -> str:
        """What counts as confirmed."""
        return f"{self.method} gains at least {self.share:.0%} of what {self.whole} gains"

    def judge(self, found: Found) -> Judged:
        """By the accuracy at the end above that of the untrained student, paired by seed."""
        before = found["student"]["accuracy"]
        ends = zip(*(_scores(found, m, "accuracy") for m in (self.method, self.whole)), strict=True)
        share = Estimate.of((part - before) / (whole - before) for part, whole in ends)
        return Judged.of(_low(share) >= self.share, f"{share.percent()} of it")


@dataclass(frozen=True)
class FallsFromItsTop(Bar):
    """A method's accuracy ends below the best that its curve had.

    Attributes:
        method: which.
        by: points that it must have lost, by the whole interval.
    """

    method: str
    by: float

    def __str__(self) -> str:
        """What counts as confirmed."""
        return f"{self.method} ends more than {self.by:g} points below its curve's top"

    def judge(self, found: Found) -> Judged:
        """By its curves, one a seed."""
        curves = [curve["accuracy"] for curve in found["methods"][self.method]["curves"]]
        lost = Estimate.of(max(curve) - curve[-1] for curve in curves)
        return Judged.of(100 * _low(lost) > self.by, f"{lost.points()} points below it")


@dataclass(frozen=True)
class Reading(Bar):
    """A reading of findings that are no comparison of methods.

    Attributes:
        says: what counts as confirmed.
        read: whether it does, and the figures.
    """

    says: str
    read: Callable[[Found], tuple[bool, str]]

    def __str__(self) -> str:
        """What counts as confirmed."""
        return self.says

    def judge(self, found: Found) -> Judged:
        """As it reads."""
        return Judged.of(*self.read(found))


@dataclass(frozen=True)
class Expectation:
    """A claim, what counts as confirmed, and the budget without which it is not tested.

    Attributes:
        source: the figure, table, theorem or other paper.
        claim: what it says.
        bar: what counts as confirmed here.
        seeds: that a comparison must have; findings that draw no seeds are not held to it.
    """

    source: str
    claim: str
    bar: Bar
    seeds: int = 3

    def judge(self, found: Found) -> Judged:
        """Grade it by an item's findings, which are empty where it was not run."""
        if not found:
            return Judged(Verdict.NOT_TESTED, "its runs are not made yet")
        seeds = found.get("seeds")
        if seeds is not None and len(seeds) < self.seeds:
            return Judged(Verdict.NOT_TESTED, f"{len(seeds)} of {self.seeds} seeds")
        return self.bar.judge(found)


def _scores(found: Found, method: str, measure: str) -> list[float]:
    if measure == "area":
        return areas(found, method)
    return [seed[measure] for seed in found["methods"][method]["scores"]]


def _low(estimate: Estimate) -> float:
    """The low end of its interval, or of one seed what it found."""
    return estimate.mean if estimate.low is None else estimate.low
