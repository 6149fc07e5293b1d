"""Which objectives can be measured on a pair of models, and why others cannot."""

from collections.abc import Callable, Sequence
from typing import Any

from transformers import AutoConfig

from oprd.analysis.objective import FLOOR
from oprd.analysis.setup import Setup
from oprd.analysis.shapes import SHAPES
from oprd.analysis.updates import all_objectives
from oprd.models.reading import context_length

# What a configuration calls what an objective needs alike in both models.
_FIELDS = {"width": "hidden_size", "vocabulary": "vocab_size"}


def choose_objectives(
    setup: Setup, asked: Sequence[str] | None, notify: Callable[[str], None]
) -> list[str]:
    """The objectives to measure, in the order of `all_objectives`, with the floors of all.

    Args:
        setup: whose models they are measured on.
        asked: names in `all_objectives`; None for all that the models permit.
        notify: told of each that None leaves out, and why.

    Raises:
        ValueError: a name is unknown, or the models do not permit what was asked for.
        OSError: a model's configuration cannot be read.
    """
    every = all_objectives()
    if unknown := set(asked or ()) - set(every):
        known = ", ".join(every)
        raise ValueError(f"objectives must be among {known}, got {', '.join(sorted(unknown))}.")
    refused = _refused(setup)
    if asked is None:
        for name, why in refused.items():
            notify(f"{name} is left out: {why}")
        return [name for name in every if name not in refused]
    for name in asked:
        if name in refused:
            raise ValueError(f"{name} cannot be measured: {refused[name]}; leave it out.")
    floors = {every[name].floor for name in asked} | {FLOOR}
    return [name for name in every if name in floors or name in asked]


def _refused(setup: Setup) -> dict[str, str]:
    """Why objectives cannot be measured, by name; one shape is the same for both models."""
    student, teacher = _sizes(setup)
    why: dict[str | None, str] = {}
    for what, field in _FIELDS.items():
        sizes = student[field], teacher[field]
        if sizes[0] != sizes[1]:
            why[what] = f"the student's {what} is {sizes[0]} and the teacher's {sizes[1]}"
    found = {name: why[o.same] for name, o in all_objectives().items() if o.same in why}
    length, context = setup.teacher_prompt_length + setup.response_length, teacher["context"]
    if context is not None and length > context:
        longer = f"{length} tokens do not fit into the teacher's context of {context}"
        found |= {name: longer for name, o in all_objectives().items() if o.own_prompt}
    return found


def _sizes(setup: Setup) -> list[dict[str, Any]]:
    """What objectives may need alike, of the student and of the teacher."""
    found = []
    for path, shape in (
        (setup.student, setup.shape),
        (setup.teacher, setup.teacher_shape or setup.shape),
    ):
        if path is not None:
            config = AutoConfig.from_pretrained(path).get_text_config()
            sizes = {field: getattr(config, field) for field in _FIELDS.values()}
            found.append({**sizes, "context": context_length(config)})
        elif shape is not None:
            own = {"vocab_size": setup.vocab_size} if setup.vocab_size else {}
            sizes = {field: {**SHAPES[shape], **own}[field] for field in _FIELDS.values()}
            found.append({**sizes, "context": SHAPES[shape].get("max_position_embeddings")})
    return found
