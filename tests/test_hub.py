"""Whether the hub answers, asked once."""

import logging

import pytest
from huggingface_hub import constants

from oprd import hub
from oprd.hub import only_cached, warn_of_waiting


@pytest.fixture
def asked(monkeypatch):
    """What a session was asked; it raises what is appended to `errors`."""
    found, errors = [], []

    class Session:
        def head(self, url, timeout):
            found.append((url, timeout))
            if errors:
                raise errors[0]

    monkeypatch.setattr(hub, "get_session", Session)
    hub._answers.cache_clear()
    yield found, errors
    hub._answers.cache_clear()


def test_a_path_that_is_here_asks_nobody(asked, tmp_path):
    assert not only_cached(str(tmp_path))
    assert asked[0] == []


def test_a_hub_is_asked_once_for_as_long_as_its_client_waits(asked, monkeypatch):
    monkeypatch.setattr(hub.time, "monotonic", lambda: 61.0)
    assert not only_cached("owner/one") and not only_cached("owner/other")
    assert asked[0] == [(constants.ENDPOINT, constants.HF_HUB_ETAG_TIMEOUT)]
    monkeypatch.setattr(hub.time, "monotonic", lambda: 121.0)
    asked[1].append(OSError("no route"))
    assert only_cached("owner/one") and len(asked[0]) == 2


def test_a_wait_is_announced_before_it_begins(asked, caplog, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with caplog.at_level(logging.WARNING):
        warn_of_waiting("owner/rows")
        assert not caplog.text
        hub._answers.cache_clear()
        asked[1].append(OSError("no route"))
        warn_of_waiting("owner/rows")
    assert "does not answer: it is asked for 'owner/rows' a few times more" in caplog.text


def test_where_nobody_is_to_be_asked_nothing_is_announced(asked, caplog, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked[1].append(OSError("offline"))
    warn_of_waiting("owner/rows")
    assert not caplog.text
