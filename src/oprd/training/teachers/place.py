"""Frozen models placed as the student is placed, sharded where that is."""

from collections.abc import Callable
from typing import Any, cast

from accelerate import Accelerator
from torch import nn
from trl.models.utils import prepare_deepspeed, prepare_fsdp

from oprd.models.reader import Reader


def place(
    reader: Reader, accelerator: Accelerator, redirect: Callable[..., Any]
) -> nn.Module | None:
    """Place a reader's model.

    Args:
        reader: it reads there from then on.
        accelerator: what places it.
        redirect: TRL's forward redirection, through which sharded weights are materialised.

    Returns:
        the model as it was wrapped; None where the student's base serves it.
    """
    if reader.active is not None:
        return None
    if getattr(accelerator.state, "deepspeed_plugin", None) is not None:
        wrapper = prepare_deepspeed(reader.model, accelerator)
    elif getattr(accelerator.state, "fsdp_plugin", None) is not None:
        wrapper = cast(nn.Module, prepare_fsdp(reader.model, accelerator))
    else:
        wrapper = accelerator.prepare_model(reader.model, evaluation_mode=True)
    reader.placed(wrapper, accelerator.unwrap_model(wrapper), redirect)
    return wrapper
