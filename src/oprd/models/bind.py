"""What must hold of a student and its teacher, tried on a few tokens before the first rollout."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from oprd.log import get_logger
from oprd.models.heads import lm_head
from oprd.models.probe import Probe, check_head, check_readable, probe, stands_whole
from oprd.models.reader import Reader

logger = get_logger(__name__)


def check_pair(
    student: Any,
    teacher: Reader,
    names: tuple[str, str],
    layers: tuple[Sequence[int], Sequence[int]],
    *,
    heads: bool,
    bridged: bool,
    same_view: bool = True,
) -> None:
    """Compare what is read of both models with what they compute, and them with each other.

    Weights that are in pieces, or on the meta device, cannot be tried, which a note says.

    Args:
        student: not wrapped.
        teacher: before it has its place.
        names: where the student and the teacher come from, for messages.
        layers: of the student and of the teacher, whose states are read.
        heads: whether LM heads are read.
        bridged: whether through a bridge, which knows one width of each model.
        same_view: whether both read the same prompts; a model that reads more teaches itself.

    Raises:
        ValueError: what is read of a model is not what it computes; see `check_readable`.
    """
    seen: dict[str, Probe] = {}
    both = {"student": (student, layers[0]), "teacher": (teacher.model, layers[1])}
    for role, (model, chosen) in both.items():
        if not stands_whole(model):
            logger.info(f"The {role}'s weights are in pieces: it is not tried on a few tokens.")
            continue
        active = teacher.active if role == "teacher" else None
        with nullcontext() if active is None else active(teacher.own(student)):
            seen[role] = check_readable(model, role, chosen, heads=heads, one_width=bridged)
    if len(seen) == 2 and same_view:
        _warn_if_equal(seen["student"], seen["teacher"], names)


def head_is_read(model: Any) -> bool:
    """Whether what is read of a model's LM head is what it computes, as far as can be tried."""
    try:
        lm_head(model)
        if stands_whole(model):
            check_head(model, probe(model), "student")
    except ValueError:
        return False
    return True


def _warn_if_equal(student: Probe, teacher: Probe, names: tuple[str, str]) -> None:
    """A teacher that is the student teaches nothing."""
    same = student.states.shape == teacher.states.shape
    if same and torch.equal(student.states, teacher.states.to(student.states)):
        logger.warning(
            f"The student ({names[0] or 'given as a model'}) and the teacher "
            f"({names[1] or 'given as a model'}) have the same states: the loss will be 0 and "
            "nothing is learned. Was one meant to be another checkpoint, or an adapter, or to read "
            "another prompt (teacher_prompt, teacher_template)?"
        )
