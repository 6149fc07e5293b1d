"""A model's LM head as weights and numbers: what output-space losses need, never its forward.

Only heads whose logits `oprd.core.output.head.LMHead` reproduces are read. Others are refused: a
loss on logits that are not the model's would train towards the wrong distribution without a sign of
it.
"""

from typing import Any, cast

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.utils.import_utils import is_peft_available

from oprd.core.output.head import LMHead
from oprd.models.reading import base_model

# What configurations call the number that multiplies the product of states and head.
_SCALES = ("logit_scale", "output_multiplier", "lm_head_multiplier")
_SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")


def lm_head(model: nn.Module) -> LMHead:
    """Read the head of a causal language model, with or without PEFT.

    Args:
        model: not wrapped for distribution; its weights materialised.

    Raises:
        ValueError: the model's logits are not one linear layer on its last hidden state, or that
            layer carries an adapter or quantised weights.
    """
    base = cast(PreTrainedModel, model.get_base_model() if _has_peft(model) else model)  # pyright: ignore[reportCallIssue]
    layer = _linear(base)
    config = base.config.get_text_config()
    head = LMHead(layer.weight, layer.bias, _scale(config), _softcap(config))
    # Rows beyond it are padding that the model itself leaves out of its logits.
    return head.cut(getattr(config, "unpadded_vocab_size", None) or head.vocab_size)


def whole(head: LMHead) -> LMHead:
    """A frozen head without a graph, its weights gathered where FSDP2 has sharded them."""
    bias = None if head.bias is None else _gathered(head.bias.detach())
    return LMHead(_gathered(head.weight.detach()), bias, head.scale, head.softcap)


def _linear(base: PreTrainedModel) -> nn.Linear:
    """The layer between last hidden state and logits."""
    found: Any = base.get_output_embeddings()
    below = base_model(base)
    # Llama 4 with pictures holds a causal language model, and the head is that one's.
    inner = getattr(base, "language_model", None)
    holder = inner if base.base_model is base and isinstance(inner, PreTrainedModel) else base
    # Anything else with weights beside the base model stands between it and the logits.
    others = [
        child
        for child in holder.children()
        if child is not below and next(child.parameters(), None) is not None
    ]
    if len(others) != 1 or others[0] is not found:
        raise _unreadable(base, "it is not one linear layer on the base model's last state")
    if _has_peft(found):
        saved = getattr(found, "modules_to_save", None)
        if saved is None:
            raise _unreadable(
                base,
                "it carries an adapter, whose part in the logits is not in the head's weight: "
                "train the head whole (modules_to_save), or merge the adapter",
            )
        found = saved[found.active_adapters[0]]
    if not isinstance(found, nn.Linear):
        raise _unreadable(base, f"it is a {type(found).__name__}, not an nn.Linear")
    if not found.weight.is_floating_point():
        raise _unreadable(base, f"its weights are {found.weight.dtype}, not floats")
    return found


def _scale(config: Any) -> float:
    values = [getattr(config, name, None) for name in _SCALES]
    scale = next((value for value in values if value is not None), 1.0)
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        # Granite and MiniCPM3 divide by it, HyperCLOVA X multiplies.
        multiplies = config.model_type.startswith("hyperclovax")
        scale = divisor if multiplies else 1 / divisor
    if not isinstance(scale, int | float):
        raise ValueError(f"cannot read the LM head: its scale is {scale!r}, not a number.")
    return float(scale)


def _softcap(config: Any) -> float | None:
    values = (getattr(config, name, None) for name in _SOFTCAPS)
    return next((float(value) for value in values if value is not None), None)


def _has_peft(module: nn.Module) -> bool:
    if not is_peft_available():
        return False
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return isinstance(module, PeftModel | BaseTunerLayer | AuxiliaryTrainingWrapper)


def _unreadable(base: nn.Module, why: str) -> ValueError:
    return ValueError(
        f"the LM head of {type(base).__name__} cannot be read: {why}. A run with "
        "output_loss='none', diagnostics_steps=0, updates_per_rollout=1 and replay=0, and without "
        "a bridge of heads, needs no head."
    )


def _gathered(weight: Tensor) -> Tensor:
    return weight.full_tensor() if isinstance(weight, DTensor) else weight
