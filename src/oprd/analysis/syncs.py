"""Where the host waits for a CUDA device, found by PyTorch's own warnings of it."""

import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PACKAGE = Path(__file__).parents[1]
# How PyTorch begins such a warning.
SAID = "called a synchronizing"
ELSEWHERE = "another package, or backward"


def host_syncs(run: Callable[[], object]) -> Counter[str]:
    """How often each line of this package waits for the device while `run` runs.

    Args:
        run: does its work on the current CUDA device; it should have run before, so that nothing is
            counted that is done once.

    Returns:
        counts by `file:line function`, of the innermost frame that is ours.
    """
    found: Counter[str] = Counter()

    def note(message: Any, *_: Any, **__: Any) -> None:
        if SAID in str(message):
            found[_ours()] += 1

    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return found


def _ours() -> str:
    for frame in reversed(traceback.extract_stack()[:-2]):
        path = Path(frame.filename)
        if path.is_relative_to(PACKAGE) and path != Path(__file__):
            return f"{path.relative_to(PACKAGE)}:{frame.lineno} {frame.name}"
    return ELSEWHERE
