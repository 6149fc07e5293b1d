"""What several processes share: what one of them finds, a folder, and the weights of models."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from torch.distributed.fsdp import StateDictType

from oprd.runs.lock import RunLock

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


@contextmanager
def run_locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; in every process, of which the main one has the lock.

    Raises:
        OSError: another run is in it.
    """
    lock = RunLock(folder)
    from_main(lock.acquire)
    try:
        yield
    finally:
        lock.release()


def stand_in_pieces(accelerator: Accelerator) -> bool:
    """Whether models' weights are not in one process to be read, under FSDP or DeepSpeed."""
    plugins = ("fsdp_plugin", "deepspeed_plugin")
    return any(getattr(accelerator.state, plugin, None) is not None for plugin in plugins)


@contextmanager
def whole_weights(accelerator: Accelerator) -> Iterator[None]:
    """Save a student in the block with all of its weights.

    Under FSDP with SHARDED_STATE_DICT, the default of FSDP2, Transformers would write none: what
    stands in pieces is for going on alone.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None:
        yield
        return
    kept, plugin.state_dict_type = plugin.state_dict_type, StateDictType.FULL_STATE_DICT
    try:
        yield
    finally:
        plugin.state_dict_type = kept


def heads_in_pieces(accelerator: Accelerator) -> str:
    """What keeps the LM heads' weights where they cannot be read; nothing where they can."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    zero3 = plugin is not None and plugin.zero_stage == 3
    fsdp = getattr(accelerator.state, "fsdp_plugin", None) is not None
    return "DeepSpeed ZeRO-3" if zero3 else "FSDP 1" if fsdp and not accelerator.is_fsdp2 else ""


def check_heads_stand_whole(accelerator: Accelerator) -> None:
    """Refuse output terms where the LM heads' weights are not there to be read."""
    if keeper := heads_in_pieces(accelerator):
        raise ValueError(
            "output_loss, diagnostics_steps, updates_per_rollout and replay read LM heads' "
            f"weights, which {keeper} keeps in pieces: use FSDP2 or DeepSpeed ZeRO-2, or leave "
            "them out."
        )
