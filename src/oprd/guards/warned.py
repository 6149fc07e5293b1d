"""What a run is warned of, from the construction of its trainer to its end, in the run folder."""

import logging
import weakref
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from oprd.runs.warned import append_warning, begin_warnings
from oprd.text import shortened

# Whose warnings are kept.
LOGGERS = ("oprd", "trl", "transformers", "accelerate")
# Warnings of a run, and characters of one.
MOST, LONGEST = 200, 2000


class RunWarnings(TrainerCallback):
    """Keeps each warning of the libraries that train once, with the step that it came after."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._waiting: list[str] = []
        self._folder: Path | None = None
        self._step = 0
        handler = _Handler(self)
        for name in LOGGERS:
            logging.getLogger(name).addHandler(handler)
        self._stop = weakref.finalize(self, _remove, handler)

    def take(self, text: str) -> None:
        """Keep a warning, until there is a run folder in memory."""
        text = shortened(text, LONGEST)
        if text in self._seen or len(self._seen) >= MOST:
            return
        self._seen.add(text)
        if self._folder is None:
            self._waiting.append(text)
        else:
            append_warning(self._folder, self._step, text)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write what was said so far."""
        if not state.is_world_process_zero or args.output_dir is None:
            return
        folder, self._step = Path(args.output_dir), state.global_step
        folder.mkdir(parents=True, exist_ok=True)
        begin_warnings(folder, state.global_step)
        for text in self._waiting:
            append_warning(folder, self._step, text)
        self._folder, self._waiting = folder, []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Know the step."""
        self._step = state.global_step

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Listen no longer."""
        self._stop()


class _Handler(logging.Handler):
    """Hands warnings to what listens as long as that is there."""

    def __init__(self, listener: RunWarnings) -> None:
        super().__init__(logging.WARNING)
        self._listener = weakref.ref(listener)

    def emit(self, record: logging.LogRecord) -> None:
        # A logger with a handler counts as heard, and Python no longer writes what nobody shows.
        handlers = _handlers(record.name)
        if logging.lastResort and handlers[0] is self and not any(map(_shows, handlers)):
            logging.lastResort.handle(record)
        if (listener := self._listener()) is not None:
            try:
                listener.take(record.getMessage())
            except Exception:
                self.handleError(record)


def _handlers(name: str) -> list[logging.Handler]:
    """All that a logger's records reach, in their order."""
    found: list[logging.Handler] = []
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        found += logger.handlers
        logger = logger.parent if logger.propagate else None
    return found


def _shows(handler: logging.Handler) -> bool:
    return not isinstance(handler, _Handler)


def _remove(handler: logging.Handler) -> None:
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(handler)
