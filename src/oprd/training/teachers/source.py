"""Where a teacher comes from: a model, a base and an adapter on it, or the student itself.

A teacher that is an adapter on the base of a student that trains an adapter itself needs no copy of
that base. Where the base trains, the teacher gets its own, with the adapter merged in.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from accelerate.utils import DistributedType
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file
from transformers.utils.import_utils import is_peft_available
from trl.trainer.utils import create_model_from_path

from oprd.models.adapters import check_no_virtual_tokens, merged
from oprd.models.identity import model_facts
from oprd.models.own_teacher import obtain_own
from oprd.models.shared_base import (
    Active,
    add_teacher_adapter,
    shares_base,
    teacher_adapter_active,
)
from oprd.models.tokenizers import check_tokenizers, find_tokenizer
from oprd.settings.run import OPRDConfig


@dataclass(frozen=True)
class TeacherSource:
    """Where a teacher comes from: a model, or a base model and an adapter on it.

    Attributes:
        model: path or hub id of the model, or of the adapter's base model; may be empty for a model
            that is given.
        adapter: path or hub id of the adapter, None where there is none.
        given: the model itself, where it is there already.
        own: how it is made of the student, see `oprd.models.own_teacher`; None where it is not.
    """

    model: str
    adapter: str | None = None
    given: PreTrainedModel | None = None
    own: str | None = None

    @classmethod
    def resolve(cls, teacher: str | PreTrainedModel | None, args: OPRDConfig) -> "TeacherSource":
        """Look whether a name is a model or an adapter, and find the adapter's base.

        Args:
            teacher: that of the settings by default.
            args: of the run.

        Raises:
            ValueError: there is no teacher, or one too many; it is an adapter that names no base,
                and none was given, or one of virtual tokens; or a setting describes the path of a
                model that is there already.
            ImportError: it is an adapter and PEFT is not installed.
        """
        teacher = teacher or args.teacher_model_name_or_path
        if args.teacher_source != "path":
            if teacher is not None:
                raise ValueError(
                    f"teacher_source={args.teacher_source!r} makes the teacher of the student: "
                    "leave the teacher's path or model out."
                )
            _check_path_options(args)
            return cls("", own=args.teacher_source)
        if teacher is None:
            raise ValueError(
                "a teacher is needed: pass teacher_model, set its path in args, or say with "
                "teacher_source how it is made of the student."
            )
        if not isinstance(teacher, str):
            _check_path_options(args)
            check_no_virtual_tokens(getattr(teacher, "peft_config", {}).values(), "teacher")
            return cls(teacher.config.name_or_path or "", given=teacher)
        base = args.teacher_base_model_name_or_path
        found = _located(teacher, args.teacher_model_revision, base)
        if base is not None and found.adapter is None:
            raise ValueError(
                f"teacher_base_model_name_or_path={base!r} is for a teacher that is an adapter, "
                f"and {teacher!r} holds no adapter_config.json."
            )
        return found

    @property
    def name(self) -> str:
        """What messages and records call it; empty for a model without a name."""
        made = {"base": "base", "copy": "first weights", "ema": "moving average"}
        return f"the student's {made[self.own]}" if self.own else self.adapter or self.model

    def facts(self, model: PreTrainedModel, revision: str | None) -> dict[str, Any]:
        """By what a resumed run knows its teacher.

        Args:
            model: that was obtained.
            revision: that was asked for.
        """
        base, own = self.model if self.adapter else None, self.own is not None
        teacher = model_facts(model, self.name, base, revision, own=own)
        return {"teacher": teacher, "teacher_dtype": str(model.dtype)}


def obtain_teacher(
    student: PreTrainedModel, source: TeacherSource, args: OPRDConfig, *, shard: bool = False
) -> tuple[PreTrainedModel, Active | None]:
    """The teacher in eval mode; the student itself where its base serves.

    Args:
        student: not wrapped.
        source: of the teacher.
        args: of the run.
        shard: whether weights will be split among processes.

    Returns:
        the model, and what is entered while the student's base serves it, None for one of its own.

    Raises:
        ValueError: a model that was given shares weights with the student, or see `obtain_own`.
    """
    if source.own is not None:
        return obtain_own(student, source.own, shard=shard)
    if source.given is not None:
        _check_own_weights(student, source.given)
        return source.given.eval(), None
    # A bridge is fitted between two models that are there.
    revision = args.teacher_model_revision
    adapter = None if args.bridged else source.adapter
    if (
        adapter is not None
        and shares_base(student, adapter, source.model, revision)
        and add_teacher_adapter(student, adapter, revision)
    ):
        return student, teacher_adapter_active
    return load_teacher(source, args, revision), None


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
        return obtain_own(student, "base", shard=False)
    if not isinstance(reference, str):
        _check_own_weights(student, reference)
        return reference.eval(), None
    source = _located(reference, None, None)
    model = load_teacher(source, args, revision=None)
    check_tokenizers(tokenizer, find_tokenizer(source.model, None, {}), model)
    return model, None


def load_teacher(
    source: TeacherSource, args: OPRDConfig, revision: str | None = None
) -> PreTrainedModel:
    """Load a teacher on its own, an adapter merged into its base, frozen and in eval mode.

    Like TRL's, it is loaded in float32 unless `teacher_model_init_kwargs` says otherwise.

    Args:
        source: where it is.
        args: of the run.
        revision: of the model's hub id, or of the adapter's.
    """
    options: dict[str, Any] = dict(cast(dict[str, Any], args.teacher_model_init_kwargs) or {})
    # Custom code of the student's repository says nothing about the teacher's.
    options.setdefault("trust_remote_code", False)
    if source.adapter is None and revision is not None:
        options.setdefault("revision", revision)
    state = args.distributed_state
    if state is not None and state.distributed_type != DistributedType.NO:
        # Accelerate or DeepSpeed decides where it stands.
        options["device_map"] = None
    teacher = create_model_from_path(source.model, **options)
    if source.adapter is not None:
        teacher = merged(teacher, source.adapter, revision)
    return cast(PreTrainedModel, teacher.eval().requires_grad_(False))


def teacher_tokenizer(source: TeacherSource, args: OPRDConfig) -> PreTrainedTokenizerBase | None:
    """The tokenizer beside the teacher's model, None where there is none."""
    given = args.teacher_model_init_kwargs
    options = given if isinstance(given, dict) else {}
    return find_tokenizer(source.model, args.teacher_model_revision, options)


def _located(name: str, revision: str | None, base: str | None) -> TeacherSource:
    """A model by its name, or an adapter and its base, which is the one that it names by default.

    Raises:
        ValueError: see `TeacherSource.resolve`.
        ImportError: likewise.
    """
    if not _is_adapter(name, revision):
        return TeacherSource(name)
    if not is_peft_available():
        raise ImportError(
            f"the teacher {name!r} is an adapter, which needs PEFT: pip install 'oprd[peft]'."
        )
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(name, revision=revision)
    check_no_virtual_tokens([config], f"teacher {name!r}")
    base = base or config.base_model_name_or_path
    if base is None:
        raise ValueError(
            f"the teacher adapter {name!r} names no base model: "
            "set teacher_base_model_name_or_path."
        )
    return TeacherSource(base, name)


def _is_adapter(name: str, revision: str | None) -> bool:
    if Path(name).is_dir():
        return (Path(name) / "adapter_config.json").is_file()
    found = cached_file(
        name,
        "adapter_config.json",
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return found is not None


def _check_path_options(args: OPRDConfig) -> None:
    """Refuse what describes a teacher's path for a model that is there already."""
    for name in (
        "teacher_model_init_kwargs",
        "teacher_model_revision",
        "teacher_base_model_name_or_path",
    ):
        if getattr(args, name) is not None:
            raise ValueError(
                f"{name} is for a teacher given by its path, and this one is not: leave it out."
            )


def _check_own_weights(student: nn.Module, teacher: nn.Module) -> None:
    """Refuse a teacher that would train with the student."""
    students = {id(parameter) for parameter in student.parameters()}
    if any(id(parameter) in students for parameter in teacher.parameters()):
        raise ValueError(
            "teacher_model shares weights with the student and would train with it: "
            "pass a copy, or the path of an adapter."
        )
