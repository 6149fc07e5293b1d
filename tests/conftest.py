"""How every test runs: on one thread, without time for what stays; slow ones within a budget."""

import gc
import os
import time

import hypothesis
import pytest
from transformers.utils import logging

from tests.processes import TwoProcesses

# Before torch is imported: numbers then depend neither on the machine's cores nor on how many
# workers share them.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

STARTED = time.monotonic()
# Slow tests that would not end within so many seconds of the start are left out, and reported.
SLOW_SECONDS = float(os.environ.get("OPRD_SLOW_SECONDS", "inf"))


def minutes(item: pytest.Item) -> float:
    """How long a slow test takes by its marker, 0 for others."""
    marker = item.get_closest_marker("slow")
    return marker.kwargs.get("minutes", 1) if marker else 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]):
    for item in items:
        if "two_processes" in getattr(item, "fixturenames", ()):
            item.add_marker("two_processes")
    items.sort(key=minutes)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item):
    seconds = 60 * minutes(item)
    if seconds and time.monotonic() - STARTED + seconds > SLOW_SECONDS:
        pytest.skip(f"{item.name} would not end within OPRD_SLOW_SECONDS={SLOW_SECONDS:.0f}")


@pytest.fixture(scope="module", autouse=True)
def imported_modules_are_no_garbage():
    """Set aside what has been imported, so that no collection looks through it again.

    Accelerate collects after every run of a trainer, which takes most of a short run's time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def libraries_say_what_they_said_before():
    """`oprd doctor` and the demo quieten Transformers, whose verbosity is the process's."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    yield
    logging.set_verbosity(verbosity)
    (logging.enable_progress_bar if bars else logging.disable_progress_bar)()


@pytest.fixture(scope="session")
def two_processes():
    """Calls `main` of a module of the tests in two processes: see `tests.processes`."""
    with TwoProcesses() as run:
        yield run
