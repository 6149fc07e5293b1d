"""Loggers that the main process alone speaks through, and that say no secrets.

A single process is not numbered.
"""

import logging
from typing import Any

from accelerate import PartialState
from accelerate.logging import MultiProcessAdapter

from oprd.secrets import masked

# Of a process that is alone.
NUMBER = "[RANK 0] "


class _Adapter(MultiProcessAdapter):
    def log(self, level: int, msg: Any, *args: Any, **kwargs: Any) -> None:
        msg, args = masked(str(msg) % args if args else str(msg)), ()
        try:
            super().log(level, msg, **kwargs)
        # Accelerate does not know yet which process this is: there is one, as far as can be said.
        except RuntimeError:
            self.logger.log(level, msg)

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        numbered, kwargs = super().process(msg, kwargs)
        return (msg if PartialState().num_processes == 1 else numbered), kwargs


class _Unnumbered(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        text = str(record.msg)
        # What begins so is Accelerate's, whose state is there.
        if text.startswith(NUMBER) and PartialState().num_processes == 1:
            record.msg = text.removeprefix(NUMBER)
        return True


def leave_out_number(name: str) -> None:
    """Let another package's logger, made by Accelerate, not number a single process either."""
    logger = logging.getLogger(name)
    if not any(isinstance(found, _Unnumbered) for found in logger.filters):
        logger.addFilter(_Unnumbered())


def get_logger(name: str) -> MultiProcessAdapter:
    """Accelerate's logger, which speaks before there is a state as well."""
    return _Adapter(logging.getLogger(name), {})
