"""What several processes share: what one of them finds, and the weights of a model."""

from collections.abc import Callable
from typing import Any, TypeVar

from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list

Found = TypeVar("Found")


def from_main(find: Callable[[], Found]) -> Found:
    """What the main process finds, in every process; so is the error that it raises.

    Args:
        find: called in the main process alone, while the others wait.
    """
    state = PartialState()
    if state.num_processes == 1:
        return find()
    told: list[Any] = [None, None]
    if state.is_main_process:
        try:
            told[0] = find()
        # The others would wait for ever.
        except Exception as error:
            told[1] = error
    broadcast_object_list(told)
    found, error = told
    if error is not None:
        raise error
    return found


def stand_in_pieces(accelerator: Accelerator) -> bool:
    """Whether models' weights are not in one process to be read, under FSDP or DeepSpeed."""
    plugins = ("fsdp_plugin", "deepspeed_plugin")
    return any(getattr(accelerator.state, plugin, None) is not None for plugin in plugins)
