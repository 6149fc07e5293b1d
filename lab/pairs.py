"""Who learns from whom in the lab."""

import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from lab.models import Recipe
from lab.moments import Moment
from lab.pretrained import Pretrained
from lab.reinforced import Reinforced
from lab.specialists import Specialists


@dataclass(frozen=True)
class Pair:
    """A student and its teacher on one task.

    Attributes:
        student: what learns.
        teacher: of whom.
        step_seconds: what a step of a run takes on one thread with its share of evaluations, about.
        recorded: whether runs take so long that what they found is kept with the results, and
            nothing else of them.
    """

    student: Moment | Pretrained
    teacher: Moment | Pretrained | Reinforced | Specialists
    step_seconds: float = 0.8
    recorded: bool = False

    @property
    def task(self) -> str:
        """The module of the task that the student is taught."""
        return self.student.task

    @property
    def task_module(self) -> ModuleType:
        """Its problems and grader."""
        return importlib.import_module(self.task)

    def check(self, samples: int) -> None:
        """Refuse a teacher from whom there is nothing to learn; its models must be there.

        Args:
            samples: responses a problem.

        Raises:
            ValueError: it solves no more than its student does.
        """
        teacher, student = (
            model.scores(samples)["reported"]["accuracy"] for model in (self.teacher, self.student)
        )
        if teacher <= student:
            raise ValueError(
                f"the teacher solves {teacher:.1%} and its student {student:.1%} of {self.task}: "
                "train the teacher for longer, or begin with an earlier student."
            )

    @property
    def key(self) -> dict[str, Any]:
        """What the models are made of; of a pretrained one its role."""
        return {"student": self.student.key, "teacher": self.teacher.key}


SUMS, SORTING = Recipe("sums"), Recipe("sorting")
# Responses of 50 to 100 tokens, where those of sums have 15.
CHAINS = Recipe("chains")
# What reinforcement learning begins with: it solves half.
BEFORE = Moment(SUMS, 350)
EARLY_SORTING = Moment(SORTING, 200)
SHOWN = Recipe("shown", until=350)
# A base that can do a little of both tasks, and what becomes of it on either.
BOTH = Recipe("both", until=300)
SPECIALISTS = Specialists(
    {
        task: Moment(
            Recipe(task, steps=600, learning_rate=1e-3, start=BOTH, start_step=BOTH.last), 600
        )
        for task in ("sums", "sorting")
    }
)
VOCABULARY = 3072
WORDS = Recipe("words", vocabulary=VOCABULARY)
PAIRS = {
    "sums": Pair(Moment(SUMS, 250), Moment(SUMS, 1500)),
    "sorting": Pair(EARLY_SORTING, Moment(SORTING, 1500), step_seconds=0.5),
    "chains": Pair(Moment(CHAINS, 250), Moment(CHAINS, 1500), step_seconds=3),
    # Three layers of width 96, its own initialisation: only a bridge or the output connects it.
    "sums, other shape": Pair(
        Moment(Recipe("sums", layers=3, width=96, steps=1000, seed=1, until=350), 350),
        Moment(SUMS, 1500),
    ),
    # The same shapes over a vocabulary of byte pairs.
    "words, other shape": Pair(
        Moment(
            Recipe(
                "words", vocabulary=VOCABULARY, layers=3, width=96, steps=1500, seed=1, until=600
            ),
            600,
        ),
        Moment(WORDS, 1500),
    ),
    # As above on the other task; with heads that are not the embedding; and with half the width.
    "sorting, other shape": Pair(
        Moment(Recipe("sorting", layers=3, width=96, steps=1000, seed=1, until=350), 250),
        Moment(SORTING, 1500),
        step_seconds=0.5,
    ),
    "sums, heads untied": Pair(
        Moment(Recipe("sums", layers=3, width=96, steps=1000, seed=1, until=500, untied=True), 500),
        Moment(Recipe("sums", untied=True), 1500),
    ),
    "sums, weaker student": Pair(
        Moment(Recipe("sums", layers=2, width=48, steps=1000, seed=2, until=350), 350),
        Moment(SUMS, 1500),
    ),
    # The teacher's shape from another initialisation: equal widths, and no common coordinates.
    "sums, unrelated": Pair(
        Moment(Recipe("sums", steps=1000, seed=1, until=300), 300), Moment(SUMS, 1500)
    ),
    # The student's tokens are characters, the teacher's byte pairs of numbers.
    "sums, other tokens": Pair(
        Moment(Recipe("sums", layers=3, width=96, steps=1000, seed=1, until=350), 350),
        Moment(Recipe("sums", vocabulary=32), 1500),
    ),
    # As in the paper: reinforcement learning made the teacher of the student.
    "sums, reinforced": Pair(BEFORE, Reinforced(BEFORE, at=300)),
    "sums, less reinforced": Pair(BEFORE, Reinforced(BEFORE, at=150)),
    "sorting, reinforced": Pair(EARLY_SORTING, Reinforced(EARLY_SORTING, at=300), step_seconds=0.5),
    "both": Pair(Moment(BOTH, BOTH.last), SPECIALISTS),
    # One model, which reads as the teacher what the student does not: the solution.
    "sums, shown": Pair(Moment(SHOWN, SHOWN.last, asked="sums"), Moment(SHOWN, SHOWN.last)),
    "additions": Pair(Pretrained("student"), Pretrained("teacher"), step_seconds=20, recorded=True),
}
