"""Which objectives can be measured on a pair of models, and why others cannot."""

from collections.abc import Callable, Sequence

from transformers import AutoConfig

from oprd.analysis.setup import Setup
from oprd.analysis.shapes import SHAPES
from oprd.analysis.updates import FLOOR, all_objectives

# What a configuration calls what an objective needs alike in both models.
_FIELDS = {"width": "hidden_size", "vocabulary": "vocab_size"}


def choose_objectives(
    setup: Setup, asked: Sequence[str] | None, notify: Callable[[str], None]
) -> list[str]:
    """The objectives to measure, in the order of `all_objectives`; the floor is always among them.

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
    return [name for name in every if name == FLOOR or name in asked]


def _refused(setup: Setup) -> dict[str, str]:
    """Why objectives cannot be measured, by name; one shape is the same for both models."""
    student, teacher = _sizes(setup)
    why = {}
    for what, field in _FIELDS.items():
        sizes = student[field], teacher[field]
        if sizes[0] != sizes[1]:
            why[what] = f"the student's {what} is {sizes[0]} and the teacher's {sizes[1]}"
    return {name: why[o.same] for name, o in all_objectives().items() if o.same in why}


def _sizes(setup: Setup) -> list[dict[str, int]]:
    """What objectives may need alike, of the student and of the teacher."""
    found = []
    for path, shape in (
        (setup.student, setup.shape),
        (setup.teacher, setup.teacher_shape or setup.shape),
    ):
        if path is not None:
            config = AutoConfig.from_pretrained(path).get_text_config()
            found.append({field: getattr(config, field) for field in _FIELDS.values()})
        elif shape is not None:
            own = {"vocab_size": setup.vocab_size} if setup.vocab_size else {}
            found.append({field: {**SHAPES[shape], **own}[field] for field in _FIELDS.values()})
    return found
