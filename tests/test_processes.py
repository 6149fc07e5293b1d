import os

import pytest
from accelerate import PartialState

from tests.processes import TwoProcesses


def main(ending: str) -> None:
    """The job of the test below."""
    state = PartialState(cpu=True)
    if ending != "well" and state.process_index == 1:
        os._exit(3)
    state.wait_for_everyone()


@pytest.mark.slow
def test_of_two_processes_one_that_dies_is_an_error_and_new_ones_take_their_place():
    with TwoProcesses() as run:
        with pytest.raises(
            AssertionError, match=r"test_processes did not end in both(.|\n)*exitcode  : 3"
        ):
            run("test_processes", "badly")
        assert run("test_processes", "well") == ["", ""]
