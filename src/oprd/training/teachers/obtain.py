"""Teachers and references as models: loaded, made of the student, or adapters on a shared base."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from oprd.models.own_teacher import obtain_own
from oprd.models.shared_base import (
    Active,
    adapter_name,
    add_teacher_adapter,
    leaves_base,
    shares_base,
    teacher_adapter_active,
)
from oprd.models.tokenizers import check_tokenizers, find_tokenizer
from oprd.settings.own_tokens import no_own_tokens
from oprd.settings.run import OPRDConfig
from oprd.training.teachers.source import TeacherSource, load_teacher, located


@dataclass
class Shared:
    """What several teachers have in common, so that it is held once.

    Attributes:
        bases: names of base models that more than one adapter is on.
        models: what was obtained already, by source, revision and whether it is read through a
            bridge.
        adapted: bases with adapters on them, by name.
    """

    bases: frozenset[str] = frozenset()
    models: dict[Any, tuple[PreTrainedModel, Active | None]] = field(default_factory=dict)
    adapted: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, sources: Sequence[TeacherSource]) -> "Shared":
        """What is known of it from where all of them come from."""
        on = [source.model for source in sources if source.adapter is not None]
        return cls(frozenset(base for base in on if on.count(base) > 1))


def obtain_teacher(
    student: PreTrainedModel,
    source: TeacherSource,
    args: OPRDConfig,
    *,
    shard: bool = False,
    name: str = "",
    shared: Shared | None = None,
) -> tuple[PreTrainedModel, Active | None]:
    """The teacher in eval mode; the student itself where its base serves.

    Args:
        student: not wrapped.
        source: of the teacher.
        args: of the run.
        shard: whether weights will be split among processes.
        name: among several teachers.
        shared: what those have in common.

    Returns:
        the model, and what is entered while it is an adapter on a base that others read with, the
        student's or several teachers'; None for a model of its own.

    Raises:
        ValueError: a model that was given shares weights with the student, or see `obtain_own`.
    """
    shared = Shared() if shared is None else shared
    # An average moves, and there is one of it.
    key = source, args.teacher_model_revision, args.bridged
    if key not in shared.models or source.own == "ema":
        shared.models[key] = _obtained(student, source, args, shard, name, shared)
    return shared.models[key]


def _obtained(
    student: PreTrainedModel,
    source: TeacherSource,
    args: OPRDConfig,
    shard: bool,
    name: str,
    shared: Shared,
) -> tuple[PreTrainedModel, Active | None]:
    if source.own is not None:
        apart = shard or bool(args.teacher_offload)
        return obtain_own(student, source.own, apart=apart, name=name)
    if source.given is not None:
        _check_own_weights(student, source.given)
        return source.given.eval(), None
    called = adapter_name(name)
    # A bridge is fitted between two models that are there.
    revision = args.teacher_model_revision
    adapter = None if args.bridged else source.adapter
    if (
        adapter is not None
        and shares_base(student, adapter, source.model, revision)
        and add_teacher_adapter(student, adapter, revision, called)
    ):
        return student, partial(teacher_adapter_active, name=called)
    beside = adapter is not None and source.model in shared.bases
    if beside and (found := _beside_others(source, args, revision, called, shared)) is not None:
        return found
    return load_teacher(source, args, revision), None


def _beside_others(
    source: TeacherSource, args: OPRDConfig, revision: str | None, name: str, shared: Shared
) -> tuple[PreTrainedModel, Active] | None:
    """An adapter beside other teachers' on one base; None where it would alter that base."""
    from peft import PeftConfig, PeftModel

    adapter = cast(str, source.adapter)
    if not leaves_base(PeftConfig.from_pretrained(adapter, revision=revision)):
        return None
    if (base := shared.adapted.get(source.model)) is None:
        loaded = load_teacher(TeacherSource(source.model), args)
        base = PeftModel.from_pretrained(loaded, adapter, adapter_name=name, revision=revision)
        shared.adapted[source.model] = base
    else:
        base.load_adapter(adapter, name, is_trainable=False, revision=revision)
    base.eval().requires_grad_(False)
    return cast(PreTrainedModel, base), partial(teacher_adapter_active, name=name)


def obtain_reference(
    student: PreTrainedModel,
    reference: str | PreTrainedModel | None,
    args: OPRDConfig,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[PreTrainedModel, Active | None]:
    """What a run with an extrapolation goes on from; see `obtain_teacher` for what is returned.

    Args:
        student: not wrapped.
        reference: a model, a path or hub id of a model or an adapter, or "base"; that of the
            settings by default.
        args: of the run.
        tokenizer: the student's, whose ids it reads.

    Raises:
        ValueError: there is none, it shares weights with the student, its ids mean other tokens, or
            see `obtain_own`.
    """
    reference = reference or args.reference_model
    if reference is None:
        raise ValueError(
            f"extrapolation={args.extrapolation} goes on from a reference through the teacher: set "
            "reference_model to what the teacher was trained from, or to base."
        )
    if reference == "base":
        return obtain_own(student, "base", apart=False)
    if not isinstance(reference, str):
        _check_own_weights(student, reference)
        return reference.eval(), None
    source = located(reference, None, None)
    model = load_teacher(source, args, revision=None)
    theirs = find_tokenizer(source.model, None, {})
    check_tokenizers(tokenizer, theirs, model, no_own=no_own_tokens(args))
    return model, None


def _check_own_weights(student: nn.Module, teacher: nn.Module) -> None:
    """Refuse a teacher that would train with the student."""
    students = {id(parameter) for parameter in student.parameters()}
    if any(id(parameter) in students for parameter in teacher.parameters()):
        raise ValueError(
            "teacher_model shares weights with the student and would train with it: "
            "pass a copy, or the path of an adapter."
        )
