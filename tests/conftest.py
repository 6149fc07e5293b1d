"""How every test runs: on one thread, without time for what stays; slow ones within a budget."""

import gc
import os

import hypothesis
import pytest

from tests.processes import TwoProcesses

# Before torch is imported: numbers then depend neither on the machine's cores nor on how many
# workers share them.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="module", autouse=True)
def imported_modules_are_no_garbage():
    """Set aside what has been imported, so that no collection looks through it again.

    Accelerate collects after every run of a trainer, which takes most of a short run's time.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def two_processes():
    """Calls `main` of a module of the tests in two processes: see `tests.processes`."""
    with TwoProcesses() as run:
        yield run
