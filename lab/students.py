"""The students that the theory items compare: untouched, and taught by each kind of loss."""

from pathlib import Path

from lab.pairs import PAIRS
from lab.runs import Run

UNTOUCHED = "untouched"
METHODS_COMPARED = ("OPRD", "reverse KL")
RATE = 1e-3


def taught(pair: str, quick: bool) -> list[Run]:
    """The runs whose students are compared; those of the accuracy tables at the same rate."""
    steps, seeds = (150, (0,)) if quick else (300, (0, 1, 2))
    return [
        Run(pair, method, RATE, seed, steps=steps) for seed in seeds for method in METHODS_COMPARED
    ]


def students(pair: str, quick: bool) -> dict[str, list[Path]]:
    """The folders of models by what made them, one a finished seed."""
    folders = {UNTOUCHED: [PAIRS[pair].student.path()]}
    for run in taught(pair, quick):
        if run.finished:
            folders.setdefault(run.method, []).append(run.folder)
    return folders
