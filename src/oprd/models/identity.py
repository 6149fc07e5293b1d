"""What a run's models are, by which a resumed run is compared with its beginning."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from oprd.models.load import fingerprint, fingerprint_of, revision
from oprd.models.probe import stands_whole
from oprd.models.shared_base import TEACHER_ADAPTER

# Where the file of an adapter is read from, and what has no part in what it computes.
PLACES = (
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "task_type",
    "auto_mapping",
    "peft_version",
)


def student_facts(student: PreTrainedModel, *, new_adapter: bool) -> dict[str, Any]:
    """What a student is before it trains.

    Args:
        student: as it was loaded, without the teacher's adapter.
        new_adapter: whether an adapter was made for this run, whose first weights are random.
    """
    weights = None
    if stands_whole(student):
        weights = fingerprint_of(_base(student)) if new_adapter else fingerprint(student)
    source = str(student.config.name_or_path or "")
    return {
        "student": {"source": source, "revision": revision(student), "weights": weights},
        "student_dtype": str(student.dtype),
        "adapter": _adapter(student),
    }


def model_facts(
    model: PreTrainedModel,
    source: str,
    base: str | None = None,
    wanted_revision: str | None = None,
    *,
    own: bool = False,
    adapter: str = TEACHER_ADAPTER,
) -> dict[str, Any]:
    """What a frozen model of a run is: its teacher, or what an extrapolation goes on from.

    Args:
        model: it; the student itself, where it is an adapter on the student's base.
        source: its path or hub id; that of the adapter, where it is one; empty without one.
        base: of an adapter.
        wanted_revision: that was asked for.
        own: whether it is made of the student, whose facts say what its weights are.
        adapter: what it is called on a base that others share.
    """
    if own:
        return {"source": source, "base": None, "revision": None, "weights": None}
    weights = None
    if stands_whole(model):
        shared = adapter in getattr(model, "peft_config", {})
        weights = fingerprint_of(_base(model, adapter)) if shared else fingerprint(model)
    revised = wanted_revision or revision(model)
    return {"source": source, "base": base, "revision": revised, "weights": weights}


def _adapter(student: PreTrainedModel) -> dict[str, Any]:
    """What the adapter computes that a student trains."""
    configs: Mapping[str, Any] = getattr(student, "peft_config", {})
    if not configs:
        return {"peft_type": "none"}
    settings = next(iter(configs.values())).to_dict()
    return {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in settings.items()
        if name not in PLACES
    }


def _base(model: Any, adapter: str | None = None) -> dict[str, Tensor]:
    """The tensors of the model that adapters are on, under its own names, and those of one adapter.

    Args:
        model: with adapters.
        adapter: the name of the one that is read with the base.
    """
    prefix = getattr(model.base_model, "prefix", None)
    found = {}
    for name, tensor in model.get_base_model().state_dict().items():
        is_adapters = (prefix is not None and prefix in name) or ".modules_to_save." in name
        if not is_adapters:
            found[name.replace(".base_layer.", ".").replace(".original_module.", ".")] = tensor
        elif adapter is not None and f".{adapter}." in name:
            found[name] = tensor
    return found
