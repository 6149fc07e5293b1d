"""Where a teacher comes from: a model, a base and an adapter on it, or the student itself.

A teacher that is an adapter on the base of a student that trains an adapter itself needs no copy of
that base. Where the base trains, the teacher gets its own, with the adapter merged in.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from accelerate.utils import DistributedType
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file
from transformers.utils.import_utils import is_peft_available
from trl.trainer.utils import create_model_from_path

from oprd.hub import only_cached
from oprd.models.adapters import check_no_virtual_tokens, merged
from oprd.models.identity import model_facts
from oprd.models.load import ask_hub
from oprd.models.shared_base import adapter_name
from oprd.models.tokenizers import find_tokenizer
from oprd.settings.run import OPRDConfig
from oprd.settings.serving import SERVER


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
        if args.teacher_source == SERVER:
            if not isinstance(teacher, str):
                raise ValueError(
                    "teacher_source='server' takes the teacher's checkpoint by its path."
                )
            return cls(teacher)
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
        found = located(teacher, args.teacher_model_revision, base)
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

    def facts(self, model: PreTrainedModel, revision: str | None, name: str = "") -> dict[str, Any]:
        """By what a resumed run knows its teacher.

        Args:
            model: that was obtained.
            revision: that was asked for.
            name: among several teachers.
        """
        base, own = self.model if self.adapter else None, self.own is not None
        adapter = adapter_name(name)
        teacher = model_facts(model, self.name, base, revision, own=own, adapter=adapter)
        return {"teacher": teacher, "teacher_dtype": str(model.dtype)}


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
    if only_cached(source.model):
        # TRL would look for its configuration on the hub, whatever it is told.
        ask_hub(source.model, "teacher", options.get("revision"))
        options.setdefault("local_files_only", True)
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


def located(name: str, revision: str | None, base: str | None) -> TeacherSource:
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
        local_files_only=only_cached(name),
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
