"""Frozen models placed as the student is placed, sharded where that is."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from accelerate import Accelerator
from torch import nn
from trl.models.utils import prepare_deepspeed, prepare_fsdp

from oprd.models.reader import Reader


def place(
    readers: Sequence[Reader],
    accelerator: Accelerator,
    redirect: Callable[..., Any],
    *,
    waits: bool = False,
) -> list[nn.Module | None]:
    """Place readers' models, each once.

    Args:
        readers: they read there from then on.
        accelerator: what places their models.
        redirect: TRL's forward redirection, through which sharded weights are materialised.
        waits: whether each waits on the CPU until it reads.

    Returns:
        the models as they were wrapped; None where one stays where it is, or waits.
    """
    placed: dict[int, nn.Module] = {}
    found: list[nn.Module | None] = []
    for reader in readers:
        # The student's base is in pieces too where that serves.
        reader.gathers = shards(accelerator)
        if reader.stays or waits:
            reader.wait_on_cpu(accelerator.device)
            found.append(None)
            continue
        model, key = reader.model, id(reader.model)
        if key not in placed:
            placed[key] = _placed(model, accelerator)
        wrapper = placed[key]
        reader.placed(wrapper, accelerator.unwrap_model(wrapper), redirect)
        found.append(wrapper)
    return found


def shards(accelerator: Accelerator) -> bool:
    """Whether weights are in pieces, which all processes gather at once."""
    plugins = ("deepspeed_plugin", "fsdp_plugin")
    return any(getattr(accelerator.state, name, None) is not None for name in plugins)


def _placed(model: nn.Module, accelerator: Accelerator) -> nn.Module:
    if getattr(accelerator.state, "deepspeed_plugin", None) is not None:
        return prepare_deepspeed(model, accelerator)
    if getattr(accelerator.state, "fsdp_plugin", None) is not None:
        return cast(nn.Module, prepare_fsdp(model, accelerator))
    return accelerator.prepare_model(model, evaluation_mode=True)
