"""Several teachers of one run, as settings have them."""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from oprd.core.layers import check_pairing, measures, select_layers
from oprd.models.prompt import compile_template
from oprd.runs.limits import Limit
from oprd.values import parse_list, parse_mapping

# Who a teacher may be instead of a path.
OWN = ("base", "copy", "ema")
# What one of several may set, and the run's setting that it takes the place of.
OWN_SETTINGS = {
    "revision": "teacher_model_revision",
    "template": "teacher_template",
    "system_prompt": "teacher_system_prompt",
    "chat_template_kwargs": "teacher_chat_template_kwargs",
    "bridge": "bridge",
    "layers": "layers",
    "layer_pairing": "layer_pairing",
}
KEYS = ("name", "source", "adapter", "weight", *OWN_SETTINGS)
# Settings of the only teacher, which several have each for itself.
ALONE = (
    "teacher_model_name_or_path",
    "teacher_model_revision",
    "teacher_base_model_name_or_path",
    "bridge",
)
# A name is part of metrics' names, and of that of an adapter.
NAME = re.compile(r"[A-Za-z0-9_-]{1,40}")
WEIGHT = Limit(0)
# Deep enough to check a specification before the model is known.
ANY_DEPTH = 10_000


def parse_teachers(teachers: object) -> list[dict[str, Any]] | None:
    """Teachers as given in Python or YAML, or as JSON on a command line.

    Raises:
        ValueError: they are not two mappings or more with a name each and known settings.
    """
    teachers = parse_list("teachers", teachers)
    if teachers is None:
        return None
    if not isinstance(teachers, list) or len(teachers) < 2:
        raise ValueError(
            f"teachers must be a list of two mappings or more, got {teachers!r}: a single teacher "
            "is teacher_model_name_or_path, or teacher_source."
        )
    parsed = [_parse(number, teacher) for number, teacher in enumerate(teachers, 1)]
    names = [teacher["name"] for teacher in parsed]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two teachers have the name {twice!r}: let each have its own.")
    weights = [teacher["weight"] for teacher in parsed if teacher.get("weight") is not None]
    if len(weights) == len(parsed) and not sum(weights):
        raise ValueError(
            f"the weights of the teachers {', '.join(names)} sum to 0: give one of them more."
        )
    if sum(teacher.get("source") == "ema" for teacher in parsed) > 1:
        raise ValueError("two teachers have the source 'ema', and a run has one moving average.")
    return parsed


def own_settings(teacher: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a run with this teacher alone would have otherwise, by name."""
    source, adapter = teacher.get("source"), teacher.get("adapter")
    settings = {OWN_SETTINGS[key]: value for key, value in teacher.items() if key in OWN_SETTINGS}
    if source in OWN:
        return settings | {"teacher_source": source}
    return settings | {
        "teacher_source": "path",
        "teacher_model_name_or_path": adapter or source,
        "teacher_base_model_name_or_path": source if adapter else None,
    }


def check_team(args: Any) -> None:
    """Refuse, with a ValueError, settings of a run that several teachers have each for itself.

    Args:
        args: of the run, an `OPRDConfig`.
    """
    if not args.teachers:
        return
    given = [name for name in ALONE if getattr(args, name) is not None]
    given += ["teacher_source"] * (args.teacher_source != "path")
    given += ["bridge"] * any(settings.bridge is not None for settings in args.objectives())
    if given:
        raise ValueError(
            f"{given[0]} is for a run with one teacher: give it to each of the teachers that it is "
            f"for ({', '.join(args.teacher_weights)})."
        )
    for name, own in args.by_teacher().items():
        try:
            select_layers(own.layer_spec, ANY_DEPTH)
            check_pairing(own.layer_pairing, own.layer_spec)
            for setting in ("teacher_template", "teacher_system_prompt"):
                compile_template(getattr(own, setting), setting)
            if measures(own.layer_pairing):
                raise ValueError(
                    f"layer_pairing={own.layer_pairing!r} is measured for an only teacher: name "
                    "the pairs, such as layer_pairing='proportional'"
                )
        except ValueError as error:
            raise ValueError(f"teacher {name!r}: {error}") from error


def _parse(number: int, teacher: object) -> dict[str, Any]:
    if not isinstance(teacher, dict):
        raise ValueError(f"teacher {number} must be a mapping with its name, got {teacher!r}.")
    for key in teacher:
        if key not in KEYS:
            close = difflib.get_close_matches(str(key), KEYS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it takes {', '.join(KEYS)}"
            raise ValueError(f"teacher {number} cannot set {key!r}: {hint}")
    name = teacher.get("name")
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise ValueError(
            f"teacher {number} needs a name of letters, digits, '_' and '-', got {name!r}."
        )
    found = dict(teacher)
    if isinstance(given := found.get("chat_template_kwargs"), str):
        found["chat_template_kwargs"] = parse_mapping(
            f"chat_template_kwargs of teacher {name!r}", given
        )
    for key in ("source", "adapter", "revision", "template", "system_prompt", "bridge"):
        if not isinstance(found.get(key), str | None) or found.get(key) == "":
            raise ValueError(f"{key} of teacher {name!r} must be text, got {found[key]!r}.")
    if found.get("adapter") and found.get("source") in OWN:
        raise ValueError(
            f"teacher {name!r} is an adapter, whose source is its base model, got "
            f"{found['source']!r}."
        )
    if found.get("bridge") == "fit":
        raise ValueError(
            f"bridge='fit' of teacher {name!r}: a run fits one bridge at most, for its only "
            "teacher. Fit one with `oprd bridge fit`, and name its file."
        )
    weight = found.get("weight")
    if weight is not None and not WEIGHT.allows(weight):
        raise ValueError(
            f"the weight of teacher {name!r} must be {WEIGHT.words(weight)}, got {weight!r}."
        )
    return found
