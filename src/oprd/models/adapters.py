"""PEFT adapters of a model: those that can be read, merged into their base, or saved beside it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME

from oprd.models.probe import close, probe, stands_whole


def check_no_virtual_tokens(configs: Iterable[Any], what: str) -> None:
    """Refuse, with a ValueError, adapters that work by tokens which only PEFT's forward adds."""
    for config in configs:
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        if config.is_prompt_learning or config.is_adaption_prompt:
            raise ValueError(
                f"the {what} is a {kind} adapter, whose virtual tokens are no part of the "
                "base model that is read here: use LoRA or another adapter of weights."
            )


def save_generation(student: Any, folder: Path) -> None:
    """Write how a student generates beside its adapter, such as where it was trained to stop.

    PEFT leaves that out, and without it the base's is what holds. A whole model has it already.
    """
    if hasattr(student, "peft_config"):
        # Not save_pretrained, which refuses what a base may have been loaded with.
        student.generation_config.to_json_file(folder / GENERATION_CONFIG_NAME)


def merged(base: PreTrainedModel, adapter: str, revision: str | None) -> PreTrainedModel:
    """A base with an adapter merged in, which gives the logits of the adapter beside it.

    Raises:
        ValueError: the adapter is not of this base, or cannot be merged into it.
    """
    from peft import PeftModel

    try:
        wrapped = PeftModel.from_pretrained(base, adapter, revision=revision)
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        raise ValueError(
            f"the adapter {adapter!r} was trained on a base with another number of tokens than "
            f"{base.config.name_or_path!r}: resize that base (resize_token_embeddings), save it, "
            "and name it with teacher_base_model_name_or_path."
        ) from error
    way_out = "pass the teacher as a PEFT model that is loaded already"
    return merge_adapter(wrapped, adapter, way_out)


def merge_adapter(wrapped: Any, adapter: str, way_out: str) -> PreTrainedModel:
    """The base of a PEFT model with its adapter merged in, and nothing of PEFT left.

    Args:
        wrapped: the PEFT model; its base is changed.
        adapter: what messages call the adapter.
        way_out: what else can be done, for a message.

    Raises:
        ValueError: the logits would be others than those of the adapter beside its base.
    """
    base = wrapped.get_base_model()
    head, embedding = _bare(base.get_output_embeddings()), _bare(base.get_input_embeddings())
    tied = getattr(head, "weight", None) is embedding.weight
    if tied and (_has_adapter(wrapped, embedding) or _has_adapter(wrapped, head)):
        # Merged into the one weight, what the adapter does to one of them would be done to both.
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        base.config.get_text_config().tie_word_embeddings = False
        base.config.tie_word_embeddings = False
    expected = probe(wrapped).logits if stands_whole(wrapped) else None
    model = cast(PreTrainedModel, wrapped.merge_and_unload())
    if expected is not None and not close(probe(model).logits, expected):
        raise ValueError(
            f"the adapter {adapter!r} merged into its base gives other logits than beside it: "
            f"{way_out}."
        )
    return model


def _bare(module: Any) -> Any:
    """A module without what PEFT has put around it."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    if isinstance(module, AuxiliaryTrainingWrapper):
        module = module.original_module
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def _has_adapter(wrapped: nn.Module, module: nn.Module | None) -> bool:
    """Whether an adapter's layer stands around a module."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return any(
        isinstance(layer, BaseTunerLayer) and layer.get_base_layer() is module
        for layer in wrapped.modules()
    )
