"""A teacher that is a second adapter on the base that the student keeps frozen.

Such a teacher needs no copy of that base: for as long as it reads, the base runs with its adapter.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils.import_utils import is_peft_available

from oprd.models.probe import probe, stands_whole

TEACHER_ADAPTER = "oprd_teacher"


def shares_base(student: nn.Module, adapter: str, base: str, revision: str | None) -> bool:
    """Whether the teacher is an adapter on the very base that the student keeps frozen.

    Only adapters that leave the base's own weights alone can stand beside another: those that train
    biases or whole modules, or are of another kind than the student's, get a base of their own.

    Args:
        student: the student, which shares only where it trains an adapter itself.
        adapter: path or hub id of the teacher's.
        base: path or hub id of what it is on.
        revision: of the adapter's hub id.
    """
    if not is_peft_available():
        return False
    from peft import PeftConfig, PeftModel

    if not isinstance(student, PeftModel):
        return False
    teacher = PeftConfig.from_pretrained(adapter, revision=revision)
    kinds = {config.peft_type for config in student.peft_config.values()}
    alters_base = getattr(teacher, "bias", "none") != "none" or any(
        getattr(teacher, name, None) for name in ("modules_to_save", "trainable_token_indices")
    )
    if kinds != {teacher.peft_type} or alters_base:
        return False
    own_base = cast(PreTrainedModel, student.get_base_model())
    prefix = cast(str, student.base_model.prefix)
    trained = [name for name, p in student.named_parameters() if p.requires_grad]
    adapters_only = bool(trained) and all(prefix in name for name in trained)
    return adapters_only and _same_place(own_base.config.name_or_path or "", base)


def add_teacher_adapter(student: nn.Module, adapter: str, revision: str | None) -> bool:
    """Load the teacher's adapter beside the student's, frozen and not active.

    Returns:
        Whether the student's own logits are what they were, bit for bit. Where they are not, the
        adapter is taken out again, and the teacher needs a base of its own.
    """
    from peft import PeftModel

    assert isinstance(student, PeftModel)
    trainable = {name for name, p in student.named_parameters() if p.requires_grad}
    whole = stands_whole(student)
    before = probe(student).logits if whole else None
    student.load_adapter(adapter, TEACHER_ADAPTER, is_trainable=False, revision=revision)
    unchanged = before is None or torch.equal(probe(student).logits, before)
    if not unchanged:
        student.delete_adapter(TEACHER_ADAPTER)
    # PEFT sets flags of the adapters it finds; the student's are left as they were.
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(name in trainable)
    return unchanged


@contextmanager
def teacher_adapter_active(student: nn.Module) -> Iterator[None]:
    """Run the shared base with the teacher's adapter, in eval mode.

    PEFT's `set_adapter` also switches `requires_grad` and would unfreeze the teacher; here only
    the choice of adapter changes, and is put back whatever happens.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    modules = list(student.modules())
    training = [module.training for module in modules]
    layers = [m for m in modules if isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    active = [layer._active_adapter for layer in layers]
    try:
        for layer in layers:
            layer._active_adapter = [TEACHER_ADAPTER]
        student.eval()
        yield
    finally:
        for layer, adapter in zip(layers, active, strict=True):
            layer._active_adapter = adapter
        for module, mode in zip(modules, training, strict=True):
            module.training = mode


def without_teacher_adapter(student: nn.Module) -> AbstractContextManager[None]:
    """Keep the teacher's adapter out of what `save_pretrained` writes."""
    configs = getattr(student, "peft_config", {})
    return _hidden(configs) if TEACHER_ADAPTER in configs else nullcontext()


@contextmanager
def _hidden(configs: dict[str, Any]) -> Iterator[None]:
    config = configs.pop(TEACHER_ADAPTER)
    try:
        yield
    finally:
        configs[TEACHER_ADAPTER] = config


def _same_place(first: str, second: str) -> bool:
    if Path(first).exists() and Path(second).exists():
        return Path(first).resolve() == Path(second).resolve()
    return first == second
