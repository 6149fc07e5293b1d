import logging

import pytest
from accelerate import PartialState
from accelerate.logging import get_logger as accelerates
from trl.trainer import distillation_trainer

from oprd.log import get_logger, leave_out_number


@pytest.fixture
def processes(monkeypatch):
    """Lets a test say how many processes there are."""
    PartialState()
    return lambda count: monkeypatch.setitem(PartialState._shared_state, "num_processes", count)


@pytest.mark.parametrize("ours", [True, False])
def test_one_process_has_no_number_and_each_of_several_has(processes, caplog, ours):
    if ours:
        logger = get_logger("oprd.test")
    else:
        leave_out_number("another.package")
        leave_out_number("another.package")
        logger = accelerates("another.package")
    for count in (1, 2):
        processes(count)
        logger.warning("the loss is 0")
    assert [record.getMessage() for record in caplog.records] == [
        "the loss is 0",
        "[RANK 0] the loss is 0",
    ]


def test_what_only_looks_like_a_number_stays(processes, caplog):
    processes(1)
    leave_out_number("another.package")
    logging.getLogger("another.package").warning("of [RANK 0] and %s", "more")
    assert caplog.messages == ["of [RANK 0] and more"]


def test_trls_warnings_have_no_number_in_one_process(processes, caplog):
    import oprd.training.trainer  # noqa: F401 # which sees to it

    processes(1)
    distillation_trainer.logger.warning("the settings are ignored")
    assert caplog.messages == ["the settings are ignored"]


@pytest.mark.parametrize("once", [False, True])
def test_a_warning_before_accelerate_has_a_state_is_said_as_it_is(monkeypatch, caplog, once):
    monkeypatch.setattr(PartialState, "_shared_state", {})
    logger = get_logger(f"oprd.early.{once}")
    (logger.warning_once if once else logger.warning)("plain text")
    assert [record.message for record in caplog.records] == ["plain text"]
    assert PartialState._shared_state == {}
