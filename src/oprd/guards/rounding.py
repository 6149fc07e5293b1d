"""Whether small updates are lost: what a student's weights are kept in while they train."""

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from transformers import PreTrainedModel

from oprd.log import get_logger

HALF = (torch.bfloat16, torch.float16)

logger = get_logger(__name__)


def warn_of_rounding(student: PreTrainedModel, accelerator: Accelerator) -> None:
    """Warn of weights that train in half precision, which an update of the usual size leaves alone.

    Args:
        student: not wrapped, before it is.
        accelerator: by which it will be.
    """
    if _trains_copies(accelerator) or _is_quantized(student):
        return
    trained = {weight.dtype for weight in student.parameters() if weight.requires_grad}
    if lossy := [str(dtype).removeprefix("torch.") for dtype in HALF if dtype in trained]:
        logger.warning(
            f"Weights of the student train in {' and '.join(lossy)}, where small updates are lost "
            "to rounding: load them in float32 (dtype: float32); `bf16: true` then computes in "
            "bfloat16."
        )


def _trains_copies(accelerator: Accelerator) -> bool:
    """Whether what is stepped are float32 copies: DeepSpeed's, and FSDP's beside an autocast."""
    kind = accelerator.distributed_type
    half = accelerator.mixed_precision != "no"
    return kind == DistributedType.DEEPSPEED or (kind == DistributedType.FSDP and half)


def _is_quantized(student: PreTrainedModel) -> bool:
    """Whether TRL casts adapters to bfloat16, in whatever precision they come."""
    return any(getattr(student, f"is_loaded_in_{bits}bit", False) for bits in (4, 8))
