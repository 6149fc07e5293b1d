"""Streaming rollouts into statistics, and going on with them after an interruption."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from oprd.calibration.reading import RowReader, update
from oprd.calibration.selection import Selection
from oprd.core.bridge import BridgeFitter
from oprd.log import get_logger
from oprd.runs.atomic import written_whole

SAVE_EVERY_SECONDS = 300.0

logger = get_logger(__name__)


class StatisticsFile:
    """The statistics of a fit that is under way, of one process.

    Args:
        path: where they are saved.
        settings: what they depend on; those of other settings are not gone on with.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self._path = path
        self._settings = json.dumps(settings, sort_keys=True)
        self._saved_at = time.monotonic()

    def load(self, fitters: Sequence[BridgeFitter]) -> int:
        """Fill fitters with what was saved, and say how many batches that is; 0 if nothing was."""
        if not self._path.is_file():
            return 0
        try:
            with safe_open(self._path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("settings") != self._settings:
                    logger.warning(f"{self._path} is of other settings: all rows are read anew.")
                    return 0
                names = file.keys()
                states = [
                    {
                        name.removeprefix(f"{n}."): file.get_tensor(name)
                        for name in names
                        if name.startswith(f"{n}.")
                    }
                    for n in range(len(fitters))
                ]
        except SafetensorError as error:
            logger.warning(f"{self._path} is damaged ({error}): all rows are read anew.")
            return 0
        for fitter, state in zip(fitters, states, strict=True):
            fitter.load_state_dict(state)
        return int(metadata["batches"])

    def save_now_and_then(self, fitters: Sequence[BridgeFitter], done: int) -> None:
        """Save where the last time is some minutes ago.

        Raises:
            OSError: the file cannot be written.
        """
        if time.monotonic() - self._saved_at < SAVE_EVERY_SECONDS:
            return
        tensors: dict[str, Tensor] = {
            f"{n}.{name}": tensor.cpu()
            for n, fitter in enumerate(fitters)
            for name, tensor in fitter.state_dict().items()
        }
        try:
            with written_whole(self._path) as file:
                save_file(tensors, file, {"settings": self._settings, "batches": str(done)})
        except SafetensorError as error:
            raise OSError(f"{self._path} cannot be written: {error}.") from error
        self._saved_at = time.monotonic()

    def remove(self) -> None:
        """Forget what was saved: the fit is done."""
        self._path.unlink(missing_ok=True)


def stream(
    reader: RowReader,
    work: Sequence[tuple[BridgeFitter, Sequence[Sequence[Selection]]]],
    saved: StatisticsFile | None,
    advance: Callable[[int], None],
) -> None:
    """Read every batch and add its rows to its fitter.

    Args:
        reader: of both models.
        work: fitters, each with its batches.
        saved: what was read before is not read again.
        advance: called with the number of rollouts that are done.

    Raises:
        FloatingPointError: a row is not finite; the message names its prompt.
        OSError: the statistics cannot be saved.
    """
    fitters = [fitter for fitter, _ in work]
    steps = [(fitter, batch) for fitter, own in work for batch in own]
    done = saved.load(fitters) if saved is not None else 0
    advance(sum(len(batch) for _, batch in steps[:done]))
    for n, (fitter, batch) in enumerate(steps[done:], done + 1):
        update(fitter, reader(batch), batch)
        advance(len(batch))
        if saved is not None:
            saved.save_now_and_then(fitters, n)
