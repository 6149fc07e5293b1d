"""Something that a student can be trained on, as a measurement of cost knows it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from oprd.analysis.setup import Scene

Family = Literal["floor", "representation", "output", "naive", "trl"]
Run = Callable[[], None]
FLOOR = "floor"


@dataclass(frozen=True)
class Objective:
    """Something that a student can be trained on.

    Attributes:
        label: what tables call it; takes the setup's `layers`, `window` and
            `teacher_prompt`.
        family: what it belongs with in a picture.
        prepare: makes an update of a scene, one forward and backward whose gradients add up in
            the student.
        same: what student and teacher must have alike, if anything.
        floor: the objective that is the least it could cost, whose name it is.
        own_prompt: whether the teacher reads one of the setup's length.
    """

    label: str
    family: Family
    prepare: Callable[[Scene], Run]
    same: Literal["width", "vocabulary"] | None = None
    floor: str = FLOOR
    own_prompt: bool = False
