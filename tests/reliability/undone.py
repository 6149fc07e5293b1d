"""Runs tests within this process, as the code is or with something of it undone."""

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
# What the outer run has already, and what would write beside it.
WITHOUT = ("xdist", "cacheprovider", "faulthandler")
# For processes that a test starts: the proof's number, of which they undo the same.
UNDONE = "OPRD_TESTS_UNDONE"


@dataclass
class Results:
    """A pytest plugin that keeps how each test ended.

    Attributes:
        outcomes: "passed", "skipped", or the kind of exception by which it failed, by node id.
        seconds: that it took, by node id.
    """

    outcomes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]):
        report = (yield).get_result()
        name = item.nodeid
        self.seconds[name] = self.seconds.get(name, 0) + report.duration
        if report.failed:
            assert call.excinfo is not None
            self.outcomes[name] = call.excinfo.type.__name__
        elif report.skipped or call.when == "call":
            self.outcomes.setdefault(name, report.outcome)


def run_tests(nodes: Iterable[str], scratch: Path, *, proof: int | None = None) -> Results:
    """How each of the tests ends.

    Args:
        nodes: of pytest; a function's stands for all its cases.
        scratch: for their files.
        proof: what is undone meanwhile, by its place among the proofs.
    """
    from tests.reliability.promises import PROOFS

    results = Results()
    options = [part for name in WITHOUT for part in ("-p", f"no:{name}")]
    # The clock of a process is one, and the outer run's.
    options += ["-q", "-m", "", "--timeout=0", f"--rootdir={ROOT}", f"--basetemp={scratch}"]
    with ExitStack() as stack:
        if proof is not None:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setenv(UNDONE, str(proof))
            undo(patch, PROOFS[proof].undone)
        pytest.main([*(f"{ROOT}/{node}" for node in nodes), *options], plugins=[results])
    return results


def undo(patch: pytest.MonkeyPatch, undone: Mapping[str, Any]) -> None:
    """Put the replacements of a proof in their places."""
    for name, value in undone.items():
        patch.setattr(name, value)


def undo_as_told(patch: pytest.MonkeyPatch) -> None:
    """In a process that a test has started: undo what the test's own process has."""
    from tests.reliability.promises import PROOFS

    if (number := os.environ.get(UNDONE)) is not None:
        undo(patch, PROOFS[int(number)].undone)
