"""The frozen teacher: loaded on its own, or as a second adapter on the base that it shares.

A teacher that is an adapter on the base of a student that trains an adapter itself needs no copy of
that base. Where the base trains, the teacher gets its own, with the adapter merged in.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file
from transformers.utils.import_utils import is_peft_available
from trl.models.utils import prepare_deepspeed, prepare_fsdp
from trl.trainer.utils import create_model_from_path

from oprd.core.capture import Transform
from oprd.core.output.head import LMHead
from oprd.models.heads import lm_head, whole
from oprd.models.reading import Reading, View, base_forward, read
from oprd.models.tokenizers import find_tokenizer
from oprd.training.config import OPRDConfig

TEACHER_ADAPTER = "oprd_teacher"


@dataclass(frozen=True)
class TeacherSource:
    """Where a teacher comes from: a model, or a base model and an adapter on it.

    Attributes:
        model: path or hub id of the model, or of the adapter's base model; may be empty for a model
            that is given.
        adapter: path or hub id of the adapter, None where there is none.
        given: the model itself, where it is there already.
    """

    model: str
    adapter: str | None = None
    given: PreTrainedModel | None = None

    @classmethod
    def resolve(cls, teacher: str | PreTrainedModel, args: OPRDConfig) -> "TeacherSource":
        """Look whether a name is a model or an adapter, and find the adapter's base.

        Raises:
            ValueError: it is an adapter that names no base, and none was given; or a setting
                describes the path of a model that is there already.
            ImportError: it is an adapter and PEFT is not installed.
        """
        if not isinstance(teacher, str):
            _check_path_options(args)
            return cls(teacher.config.name_or_path or "", given=teacher)
        name = teacher
        if not _is_adapter(name, args.teacher_model_revision):
            if args.teacher_base_model_name_or_path is not None:
                raise ValueError(
                    f"teacher_base_model_name_or_path={args.teacher_base_model_name_or_path!r} is "
                    f"for a teacher that is an adapter, and {name!r} holds no adapter_config.json."
                )
            return cls(name)
        if not is_peft_available():
            raise ImportError(
                f"the teacher {name!r} is an adapter, which needs PEFT: pip install 'oprd[peft]'."
            )
        from peft import PeftConfig

        config = PeftConfig.from_pretrained(name, revision=args.teacher_model_revision)
        base = args.teacher_base_model_name_or_path or config.base_model_name_or_path
        if base is None:
            raise ValueError(
                f"the teacher adapter {name!r} names no base model: "
                "set teacher_base_model_name_or_path."
            )
        return cls(base, name)


def obtain_teacher(
    student: PreTrainedModel, source: TeacherSource, args: OPRDConfig
) -> PreTrainedModel:
    """The teacher in eval mode; the student itself, with one more adapter, where its base serves.

    Raises:
        ValueError: a model that was given shares weights with the student.
    """
    if source.given is not None:
        _check_own_weights(student, source.given)
        return source.given.eval()
    # A bridge is fitted between two models that are there.
    if not args.bridged and shares_base(student, source, args.teacher_model_revision):
        add_teacher_adapter(student, source, args.teacher_model_revision)
        return student
    return load_teacher(source, args)


def load_teacher(source: TeacherSource, args: OPRDConfig) -> PreTrainedModel:
    """Load a teacher on its own, an adapter merged into its base, frozen and in eval mode.

    Like TRL's, it is loaded in float32 unless `teacher_model_init_kwargs` says otherwise.
    """
    options: dict[str, Any] = dict(cast(dict[str, Any], args.teacher_model_init_kwargs) or {})
    # Custom code of the student's repository says nothing about the teacher's.
    options.setdefault("trust_remote_code", False)
    if source.adapter is None and args.teacher_model_revision is not None:
        options.setdefault("revision", args.teacher_model_revision)
    state = args.distributed_state
    if state is not None and state.distributed_type != DistributedType.NO:
        # Accelerate or DeepSpeed decides where it stands.
        options["device_map"] = None
    teacher = create_model_from_path(source.model, **options)
    if source.adapter is not None:
        from peft import PeftModel

        wrapped = PeftModel.from_pretrained(
            teacher, source.adapter, revision=args.teacher_model_revision
        )
        teacher = cast(PreTrainedModel, wrapped.merge_and_unload())
    return cast(PreTrainedModel, teacher.eval().requires_grad_(False))


def teacher_tokenizer(source: TeacherSource, args: OPRDConfig) -> PreTrainedTokenizerBase | None:
    """The tokenizer beside the teacher's model, None where there is none."""
    given = args.teacher_model_init_kwargs
    options = given if isinstance(given, dict) else {}
    return find_tokenizer(source.model, args.teacher_model_revision, options)


def prepare_teacher(teacher: PreTrainedModel, accelerator: Accelerator) -> nn.Module:
    """Place a teacher of its own as the student is placed, sharded where that is."""
    if getattr(accelerator.state, "deepspeed_plugin", None) is not None:
        return prepare_deepspeed(teacher, accelerator)
    if getattr(accelerator.state, "fsdp_plugin", None) is not None:
        return cast(nn.Module, prepare_fsdp(teacher, accelerator))
    return accelerator.prepare_model(teacher, evaluation_mode=True)


def shares_base(student: nn.Module, source: TeacherSource, revision: str | None) -> bool:
    """Whether the teacher is an adapter on the very base that the student keeps frozen.

    Only adapters that leave the base's own weights alone can stand beside another: those that train
    biases or whole modules, or are of another kind than the student's, get a base of their own.
    """
    if source.adapter is None or not is_peft_available():
        return False
    from peft import PeftConfig, PeftModel

    if not isinstance(student, PeftModel):
        return False
    teacher = PeftConfig.from_pretrained(source.adapter, revision=revision)
    kinds = {config.peft_type for config in student.peft_config.values()}
    alters_base = getattr(teacher, "bias", "none") != "none" or getattr(
        teacher, "modules_to_save", None
    )
    if kinds != {teacher.peft_type} or alters_base:
        return False
    base = cast(PreTrainedModel, student.get_base_model())
    prefix = cast(str, student.base_model.prefix)
    trained = [name for name, p in student.named_parameters() if p.requires_grad]
    adapters_only = bool(trained) and all(prefix in name for name in trained)
    return adapters_only and _same_place(base.config.name_or_path or "", source.model)


def add_teacher_adapter(student: nn.Module, source: TeacherSource, revision: str | None) -> None:
    """Load the teacher's adapter beside the student's, frozen and not active."""
    from peft import PeftModel

    assert isinstance(student, PeftModel) and source.adapter is not None
    trainable = {name for name, p in student.named_parameters() if p.requires_grad}
    student.load_adapter(source.adapter, TEACHER_ADAPTER, is_trainable=False, revision=revision)
    # PEFT sets flags of the adapters it finds; the student's are left as they were.
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(name in trainable)


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


class TeacherReader:
    """The frozen teacher as it reads rollouts, wherever its weights are.

    Args:
        model: the prepared teacher; None where it is an adapter on the student's own base.
        accelerator: what prepared it.
        redirect: TRL's forward redirection, through which sharded weights are materialised.
    """

    def __init__(
        self, model: nn.Module | None, accelerator: Accelerator, redirect: Callable[..., Any]
    ) -> None:
        self._wrapper = model
        self._model = None if model is None else accelerator.unwrap_model(model)
        self._redirect = redirect

    def read(
        self,
        student: nn.Module,
        view: View,
        layers: Sequence[int],
        *,
        last: bool = False,
        transform: Transform | None = None,
    ) -> Reading:
        """The teacher's rows of a view; the caller turns gradients off.

        Args:
            student: not wrapped, for a teacher on its base.
            view: what it reads.
            layers: teacher layers, see `read`.
            last: see `read`.
            transform: see `read`.
        """
        if self._wrapper is None or self._model is None:
            with teacher_adapter_active(student):
                return read(student, view, layers, last=last, transform=transform)
        self._wrapper.eval()
        return read(
            self._model, view, layers, last=last, transform=transform, forward=self._forward
        )

    def head(self, student: nn.Module) -> LMHead:
        """The teacher's LM head, without a graph."""
        return whole(lm_head(student if self._model is None else self._model))

    def _forward(self, model: nn.Module, *inputs: Tensor, **extra: Any) -> Any:
        return self._redirect(self._wrapper, model, partial(base_forward, model), *inputs, **extra)


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


def _same_place(first: str, second: str) -> bool:
    if Path(first).exists() and Path(second).exists():
        return Path(first).resolve() == Path(second).resolve()
    return first == second


def _check_path_options(args: OPRDConfig) -> None:
    """Refuse what describes a teacher's path for a model that is there already."""
    for name in (
        "teacher_model_init_kwargs",
        "teacher_model_revision",
        "teacher_base_model_name_or_path",
    ):
        if getattr(args, name) is not None:
            raise ValueError(
                f"{name} is for a teacher given by its path, and this one is a model: leave it out."
            )


def _check_own_weights(student: nn.Module, teacher: nn.Module) -> None:
    """Refuse a teacher that would train with the student."""
    students = {id(parameter) for parameter in student.parameters()}
    if any(id(parameter) in students for parameter in teacher.parameters()):
        raise ValueError(
            "teacher_model shares weights with the student and would train with it: "
            "pass a copy, or the path of an adapter."
        )
