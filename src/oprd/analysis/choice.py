"""Which objectives can be measured on a pair of models, and why others cannot."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from oprd.analysis.objective import FLOOR
from oprd.analysis.setup import Setup
from oprd.analysis.shapes import shape_config
from oprd.analysis.updates import all_objectives
from oprd.hub import only_cached
from oprd.models.load import ADAPTER, base_of, find_model
from oprd.models.reading import context_length

# What a configuration calls what an objective needs alike in both models.
_FIELDS = {"width": "hidden_size", "vocabulary": "vocab_size"}


def choose_objectives(
    setups: Sequence[Setup], asked: Sequence[str] | None, notify: Callable[[str], None]
) -> list[str]:
    """The objectives to measure, in the order of `all_objectives`, with the floors of all.

    Args:
        setups: on each of which they are measured.
        asked: names in `all_objectives`; None for all that every setup permits.
        notify: told of each that None leaves out, and why.

    Raises:
        ValueError: a name is unknown, a setup's rollouts are too long for its models, or they do
            not permit what was asked for.
        OSError: a model cannot be found, or its configuration cannot be read.
    """
    every = all_objectives()
    if unknown := set(asked or ()) - set(every):
        known = ", ".join(every)
        raise ValueError(f"objectives must be among {known}, got {', '.join(sorted(unknown))}.")
    given = cache(_given)
    models = [_configs(setup, given) for setup in setups]
    refused: dict[str, str] = {}
    for setup, configs in zip(setups, models, strict=True):
        refused = {**_refused(setup, configs), **refused}
    for name in asked or ():
        if name in refused:
            raise ValueError(f"{name} cannot be measured: {refused[name]}; leave it out.")
    for setup, configs in zip(setups, models, strict=True):
        setup.check_contexts(configs)
    if asked is None:
        for name, why in refused.items():
            notify(f"{name} is left out: {why}")
        return [name for name in every if name not in refused]
    floors = {every[name].floor for name in asked} | {FLOOR}
    return [name for name in every if name in floors or name in asked]


def _refused(setup: Setup, configs: Mapping[str, Any]) -> dict[str, str]:
    """Why objectives cannot be measured, by name; one shape is the same for both models."""
    student, teacher = (config.get_text_config() for config in configs.values())
    why: dict[str | None, str] = {}
    for what, field in _FIELDS.items():
        sizes = getattr(student, field), getattr(teacher, field)
        if sizes[0] != sizes[1]:
            why[what] = f"the student's {what} is {sizes[0]} and the teacher's {sizes[1]}"
    found = {name: why[o.same] for name, o in all_objectives().items() if o.same in why}
    length, context = setup.teacher_prompt_length + setup.response_length, context_length(teacher)
    if context is not None and length > context:
        longer = f"{length} tokens do not fit into the teacher's context of {context}"
        found |= {name: longer for name, o in all_objectives().items() if o.own_prompt}
    return found


def _configs(setup: Setup, given: Callable[[str, str], Any]) -> dict[str, Any]:
    """Those of a setup's models, by their part."""
    sizes = {"layers_count": setup.layers_count, "vocab_size": setup.vocab_size}
    models = {
        "student": (setup.student, setup.shape),
        "teacher": (setup.teacher, setup.teacher_shape or setup.shape),
    }
    return {
        what: shape_config(str(shape), **sizes) if path is None else given(path, what)
        for what, (path, shape) in models.items()
    }


def _given(source: str, what: str) -> Any:
    """The configuration of a model that is there, that of its base for an adapter."""
    place = find_model(source, what)
    try:
        if (Path(place) / ADAPTER).is_file() and not (place := base_of(place)):
            raise ValueError(f"name its base model, base_model_name_or_path in its {ADAPTER}.")
        here = {"local_files_only": only_cached(place)}
        return AutoConfig.from_pretrained(place, trust_remote_code=False, **here)
    except (OSError, ValueError) as error:
        raise OSError(f"{what} {source!r} cannot be loaded: {error}") from error
