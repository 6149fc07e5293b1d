"""Loggers that the main process alone speaks through, and that do not number a single process."""

import logging
from typing import Any

from accelerate import PartialState
from accelerate.logging import MultiProcessAdapter


class _Adapter(MultiProcessAdapter):
    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        numbered, kwargs = super().process(msg, kwargs)
        return (msg if PartialState().num_processes == 1 else numbered), kwargs


def get_logger(name: str) -> MultiProcessAdapter:
    """Accelerate's logger: state must be there before it logs."""
    return _Adapter(logging.getLogger(name), {})
