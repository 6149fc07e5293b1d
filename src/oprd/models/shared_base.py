"""A teacher on the base that the student keeps frozen: a second adapter, or the base as it is.

Such a teacher needs no copy of that base: for as long as it reads, the base runs with its adapter,
or without any.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils.import_utils import is_peft_available

from oprd.models.probe import probe, stands_whole

# Of the only teacher; before the names of several.
TEACHER_ADAPTER = "oprd_teacher"
# Entered with the student while its base serves another model.
Active = Callable[[nn.Module], AbstractContextManager[None]]
# Ways to begin an adapter that change the base under it.
ALTERING = ("pissa", "olora", "corda", "loftq")


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
    if kinds != {teacher.peft_type} or not leaves_base(teacher):
        return False
    own_base = cast(PreTrainedModel, student.get_base_model())
    return trains_adapters_alone(student) and _same_place(own_base.config.name_or_path or "", base)


def leaves_base(config: Any) -> bool:
    """Whether an adapter leaves the base's own weights as they are, so that others can share it."""
    further = ("modules_to_save", "trainable_token_indices")
    return getattr(config, "bias", "none") == "none" and not any(
        getattr(config, name, None) for name in further
    )


def adapter_name(teacher: str) -> str:
    """What the adapter of one of several teachers is called beside the student's."""
    return f"{TEACHER_ADAPTER}_{teacher}" if teacher else TEACHER_ADAPTER


def is_teachers(adapter: str) -> bool:
    """Whether an adapter's name is that of a teacher's."""
    return adapter.startswith(TEACHER_ADAPTER)


def trains_adapters_alone(student: nn.Module) -> bool:
    """Whether a student is an adapter on a base of which nothing trains."""
    if not is_peft_available():
        return False
    from peft import PeftModel

    if not isinstance(student, PeftModel):
        return False
    prefix = cast(str, student.base_model.prefix)
    trained = [name for name, p in student.named_parameters() if p.requires_grad]
    return bool(trained) and all(prefix in name for name in trained)


def check_base_is_model(student: Any) -> None:
    """Refuse, with a ValueError, an adapter whose beginning took a part out of the base."""
    for config in student.peft_config.values():
        begun = str(getattr(config, "init_lora_weights", "")).lower()
        if begun.startswith(ALTERING):
            raise ValueError(
                f"init_lora_weights={begun!r} moves a part of the base into the adapter, so that "
                "the base alone is no model: give the base by its path, or begin the adapter "
                "otherwise."
            )


def add_copied_adapter(student: nn.Module, name: str = TEACHER_ADAPTER) -> bool:
    """Put a copy of the student's adapter beside it, as the teacher's: frozen and not active.

    Returns:
        Whether the student's own logits are what they were; see `add_teacher_adapter`.
    """
    from peft import PeftModel

    assert isinstance(student, PeftModel)
    (active,) = student.active_adapters
    config = copy.deepcopy(student.peft_config[active])
    if hasattr(config, "init_lora_weights"):
        # Others would change the base; what it begins with is overwritten.
        cast(Any, config).init_lora_weights = True

    def add() -> None:
        with torch.random.fork_rng():
            student.add_adapter(name, config)
        with torch.no_grad():
            for own, teachers in adapter_pairs(student, name).values():
                teachers.data = own.detach().clone()

    return _added(student, add, name)


def adapter_pairs(
    student: nn.Module, teacher: str = TEACHER_ADAPTER
) -> dict[str, tuple[nn.Parameter, nn.Parameter]]:
    """The weights of the student's adapter with those of the teacher's, by the student's name.

    Raises:
        ValueError: there are none.
    """
    named = dict(student.named_parameters())
    (active,) = cast(Any, student).active_adapters
    prefix = cast(Any, student).base_model.prefix
    found = {}
    for name, parameter in named.items():
        other = named.get(_of_adapter(name, prefix, active, teacher))
        if other is not None and other is not parameter:
            found[name] = parameter, other
    if not found:
        raise ValueError(
            f"none of the student's weights is one of its adapter {active!r} with another of "
            f"{teacher!r} beside it, so that they cannot be copied: give the teacher by its path."
        )
    return found


def _of_adapter(name: str, prefix: str, adapter: str, other: str) -> str:
    """The name of a weight with another adapter in the place of one.

    A module may be called as an adapter is: the adapter's own place is behind what holds those of a
    layer, such as `lora_A`.
    """
    parts = name.split(".")
    holders = [place for place, part in enumerate(parts) if part.startswith(prefix)]
    if holders and adapter in parts[holders[0] + 1 :]:
        parts[parts.index(adapter, holders[0] + 1)] = other
    return ".".join(parts)


def add_teacher_adapter(
    student: nn.Module, adapter: str, revision: str | None, name: str = TEACHER_ADAPTER
) -> bool:
    """Load the teacher's adapter beside the student's, frozen and not active.

    Returns:
        Whether the student's own logits are what they were, bit for bit. Where they are not, the
        adapter is taken out again, and the teacher needs a base of its own.
    """
    from peft import PeftModel

    assert isinstance(student, PeftModel)

    def add() -> None:
        student.load_adapter(adapter, name, is_trainable=False, revision=revision)

    return _added(student, add, name)


def _added(student: Any, add: Callable[[], None], adapter: str) -> bool:
    """Add the teacher's adapter, and take it out again where the student's logits change."""
    trainable = {name for name, p in student.named_parameters() if p.requires_grad}
    whole = stands_whole(student)
    before = probe(student).logits if whole else None
    add()
    unchanged = before is None or torch.equal(probe(student).logits, before)
    if not unchanged:
        student.delete_adapter(adapter)
    # PEFT sets flags of the adapters it finds; the student's are left as they were.
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(name in trainable)
    return unchanged


def teacher_adapter_active(
    student: nn.Module, name: str = TEACHER_ADAPTER
) -> AbstractContextManager[None]:
    """Run the shared base with the teacher's adapter, in eval mode."""
    return _running(student, name)


def base_active(student: nn.Module) -> AbstractContextManager[None]:
    """Run the shared base without any adapter, in eval mode."""
    return _running(student, None)


@contextmanager
def _running(student: nn.Module, adapter: str | None) -> Iterator[None]:
    """Run with another adapter or none, in eval mode.

    PEFT's `set_adapter` also switches `requires_grad` and would unfreeze the teacher; here only
    the choice of adapter changes, and is put back whatever happens.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    modules = list(student.modules())
    training = [module.training for module in modules]
    layers = [m for m in modules if isinstance(m, BaseTunerLayer | AuxiliaryTrainingWrapper)]
    active = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
    try:
        for layer in layers:
            if adapter is None:
                layer._disable_adapters = True
            else:
                layer._active_adapter = [adapter]
        student.eval()
        yield
    finally:
        for layer, state in zip(layers, active, strict=True):
            layer._active_adapter, layer._disable_adapters = state
        for module, mode in zip(modules, training, strict=True):
            module.training = mode


@contextmanager
def without_teacher_adapter(student: nn.Module) -> Iterator[None]:
    """Keep teachers' adapters out of what `save_pretrained` writes."""
    configs = getattr(student, "peft_config", {})
    hidden = {name: configs.pop(name) for name in list(configs) if is_teachers(name)}
    try:
        yield
    finally:
        configs.update(hidden)


def students_weights(student: nn.Module, state: dict[str, Any] | None) -> dict[str, Any] | None:
    """What of a student's state is its own; PEFT takes out only adapters that it is told of.

    Args:
        student: not wrapped.
        state: its state where it was gathered already.
    """
    if not any(map(is_teachers, getattr(student, "peft_config", {}))):
        return state
    whole = student.state_dict() if state is None else state
    return {n: value for n, value in whole.items() if not any(map(is_teachers, n.split(".")))}


def _same_place(first: str, second: str) -> bool:
    if Path(first).exists() and Path(second).exists():
        return Path(first).resolve() == Path(second).resolve()
    return first == second
