"""Teachers that are made of the student: its base, itself as it was, and the mean of what it was.

Where the student trains an adapter, they stand on its own base, which is held once.
"""

import copy
from functools import partial
from typing import Any, cast

from transformers import PreTrainedModel

from oprd.models.probe import stands_whole
from oprd.models.shared_base import (
    Active,
    adapter_name,
    add_copied_adapter,
    base_active,
    check_base_is_model,
    teacher_adapter_active,
    trains_adapters_alone,
)


def obtain_own(
    student: PreTrainedModel, source: str, *, apart: bool, name: str = ""
) -> tuple[PreTrainedModel, Active | None]:
    """A frozen teacher made of the student as it is now.

    A copy shares with the student the weights that are frozen there: they must not train later,
    which `Reader` refuses.

    Args:
        student: not wrapped.
        source: "base", "copy" or "ema".
        apart: whether a copy shares none, because each model is split or moved on its own.
        name: among several teachers.

    Returns:
        the model, and what is entered while the student's base serves; None for a copy.

    Raises:
        ValueError: the student has no frozen base to read with, or its weights are in pieces.
    """
    adapters = trains_adapters_alone(student)
    if source == "base":
        if not adapters:
            raise ValueError(
                "teacher_source='base' is the student's base without its adapter, and this "
                "student trains its base: train an adapter (peft_config, --use_peft), or take "
                "teacher_source='copy'."
            )
        check_base_is_model(student)
        return student, base_active
    if not stands_whole(student):
        raise ValueError(
            f"teacher_source={source!r} copies the student, whose weights are in pieces or not "
            "loaded in every process (fsdp_cpu_ram_efficient_loading, ZeRO-3): load them whole, or "
            "give the teacher by its path."
        )
    adapter = adapter_name(name)
    if adapters and add_copied_adapter(student, adapter):
        return student, partial(teacher_adapter_active, name=adapter)
    shared: Any = {} if apart else {id(p): p for p in student.parameters() if not p.requires_grad}
    copied = cast(PreTrainedModel, copy.deepcopy(student, shared))
    return copied.eval().requires_grad_(False), None
