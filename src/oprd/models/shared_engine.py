"""Drawing responses in several processes, which go on together or stop together."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from oprd.models.generate import Request, Response, TransformersEngine
from oprd.models.sampling import Sampling


class StoppedElsewhereError(ValueError):
    """Another process has failed; the message is its own."""


class SharedEngine:
    """An engine whose work is divided among the processes; each gets all the responses.

    To be used within `stopping_together`.
    """

    def __init__(self, engine: TransformersEngine, accelerator: Accelerator) -> None:
        self.name, self.dtype = engine.name, engine.dtype
        self.tokenizer, self.context_length = engine.tokenizer, engine.context_length
        self._engine, self._accelerator = engine, accelerator

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Response]]:
        """Draw every request once.

        Every process draws in every round, for nothing where none is left for it: a forward pass
        of a sharded model needs them all.
        """
        ordered = sorted(requests, key=lambda request: -len(request.prompt_ids))
        rank, processes = self._accelerator.process_index, self._accelerator.num_processes
        size = processes * self._engine.batch_size
        for start in range(0, len(ordered), size):
            # What a process does between two rounds, such as grading, may have failed.
            exchange()
            together = ordered[start : start + size]
            mine = together[rank::processes]
            (drawn,) = self._engine.generate(mine or together[:1], sampling)
            yield [response for part in exchange(drawn if mine else []) for response in part]


@contextmanager
def stopping_together() -> Iterator[None]:
    """Stop in every process where one fails on what it does alone.

    Raises:
        StoppedElsewhereError: another process has failed.
    """
    try:
        yield
    except StoppedElsewhereError:
        raise
    except Exception as error:
        exchange(failure=f"{type(error).__name__}: {error}")
        raise
    exchange()


def exchange(mine: Any = None, failure: str | None = None) -> list[Any]:
    """What each process has, in their order.

    Args:
        mine: what this one has.
        failure: why this one stops, which the others are told.

    Raises:
        StoppedElsewhereError: another process stops, and this one has not failed itself.
    """
    found = gather_object([(failure, mine)])
    failures = [f"process {rank} has stopped: {why}" for rank, (why, _) in enumerate(found) if why]
    if failures and failure is None:
        raise StoppedElsewhereError(failures[0])
    return [theirs for _, theirs in found]
