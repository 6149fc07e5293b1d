import warnings

import pytest
import torch

from oprd.analysis import syncs
from oprd.analysis.syncs import ELSEWHERE, host_syncs
from oprd.core.output.head import LMHead


@pytest.fixture
def debugging(monkeypatch):
    """PyTorch's switch, on a machine without a device."""
    modes = ["default"]
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    return modes


class Waits:
    """A tensor whose shape makes the host wait."""

    @property
    def shape(self):
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        return (2, 3)


def test_a_wait_is_counted_by_the_line_of_ours_that_asked_for_it(debugging):
    head = LMHead(torch.zeros(2, 3))
    object.__setattr__(head, "weight", Waits())

    def run():
        _ = head.vocab_size, head.vocab_size, head.width
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    found = host_syncs(run)
    assert {name.split()[-1]: n for name, n in found.items()} == {
        "vocab_size": 2,
        "width": 1,
        "backward": 1,
    }
    assert all(name.startswith("core/output/head.py:") for name in found if name != ELSEWHERE)
    assert debugging == ["default", "warn", 0]


def test_the_switch_is_put_back_after_an_error(debugging):
    with pytest.raises(RuntimeError, match="broken"):
        host_syncs(lambda: (_ for _ in ()).throw(RuntimeError("broken")))
    assert debugging[-1] == 0
    assert warnings.showwarning.__module__ != syncs.__name__
