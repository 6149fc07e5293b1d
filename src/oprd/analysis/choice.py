"""Which objectives can be measured on a pair of models, and why others cannot."""

from collections.abc import Callable, Sequence

from transformers import AutoConfig

from oprd.analysis.setup import Setup
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
    """Why objectives cannot be measured, by name; a shape is the same for both models."""
    if setup.student is None or setup.teacher is None:
        return {}
    student, teacher = (
        AutoConfig.from_pretrained(path).get_text_config()
        for path in (setup.student, setup.teacher)
    )
    why = {}
    for what, field in _FIELDS.items():
        sizes = getattr(student, field), getattr(teacher, field)
        if sizes[0] != sizes[1]:
            why[what] = f"the student's {what} is {sizes[0]} and the teacher's {sizes[1]}"
    return {name: why[o.same] for name, o in all_objectives().items() if o.same in why}
