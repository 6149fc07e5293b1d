"""A run that is killed, filled up and ended at random, beside one that is left alone.

Both make the same steps. The disturbed one is started again until it has made them; it must end
with the weights of the other, bit for bit.
"""

import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from oprd.runs.checkpoints import numbered
from oprd.runs.manifest import MANIFEST, SAVING, problem
from oprd.runs.metrics import METRICS
from tests.soak.processes import Processes
from tests.soak.worker import RSS

STUDENT = "model.safetensors"
# Who looks this often sees every save.
GLANCE = 0.0005
# How a run ends that SIGTERM asked to.
ENDED = 143
FAULTS = (
    "kill", "kill in a save", "full disk", "kill in a save", "kill", "asked to end", "kill",
    "full disk in a save", "kill in a save", "kill",
)  # fmt: skip


@dataclass
class Soaked:
    """What a disturbed run went through.

    Attributes:
        faults: that took effect, by kind.
        starts: of the run.
        seconds: that it took.
    """

    faults: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    seconds: float = 0.0

    @property
    def kills(self) -> int:
        """Of both kinds."""
        return self.faults["kill"] + self.faults["kill in a save"]


def soak(
    folder: Path, *, steps: int, save_steps: int, kills: int, processes: int, seed: int
) -> Soaked:
    """Disturb a run until it has been killed so often, then let it end.

    Faults take turns, so that a third of the kills is inside a save, each between two steps of the
    run that are drawn at random.

    Raises:
        AssertionError: the run failed otherwise than it was made to, or stands still.
    """
    drawn, soaked, began = random.Random(seed), Soaked(), time.monotonic()
    arguments = [str(folder), str(steps), str(save_steps)]
    log = folder.with_suffix(".log")
    # The last fault is some steps before the end; one within a save waits for the next one.
    faults = kills * len(FAULTS) / sum(fault.startswith("kill") for fault in FAULTS)
    apart = max(1, round(steps / (faults + 2) - save_steps))
    turn = 0
    while True:
        run = Processes(processes, arguments, log)
        soaked.starts += 1
        assert soaked.starts < 5 * kills + 10, f"it does not get on, see {log}"
        fault = FAULTS[turn % len(FAULTS)] if soaked.kills < kills else None
        place = last_step(folder) + drawn.randint(1, 2 * apart)
        took = fault is not None and disturb(run, fault, folder, place, drawn)
        codes = run.wait()
        check_folder(folder)
        if took and fault is not None:
            soaked.faults[fault] += 1
            turn += 1
            expected = {"kill": -9, "asked": ENDED}.get(fault.split()[0], 1)
            assert expected in codes, f"{fault}: exit codes {codes}, see {log}"
            continue
        if all(code == 0 for code in codes):
            break
        assert took or fault is not None, f"exit codes {codes}, see {log}"
    soaked.seconds = time.monotonic() - began
    return soaked


def disturb(run: Processes, fault: str, folder: Path, place: int, drawn: random.Random) -> bool:
    """Wait for a step, or the first save after it, and do it; False where that came too late."""
    while last_step(folder) < place:
        if run.ended:
            return False
        time.sleep(0.01)
    inside = fault.endswith("in a save")
    while inside and not (saving := being_saved(folder)):
        if run.ended:
            return False
        time.sleep(GLANCE)
    time.sleep(drawn.random() * (0.01 if inside else 0.3))
    if fault.startswith("kill"):
        run.kill()
        # One that came too late is a kill all the same, and not counted as one in a save.
        return not inside or cut_off(saving)
    if fault.startswith("full"):
        run.limit_files(drawn.randrange(4096, 65536))
    else:
        run.ask()
    return True


def last_step(folder: Path) -> int:
    """The last that the run has logged."""
    file = folder / METRICS
    found = re.findall(rb'"step": (\d+)', file.read_bytes()[-8192:]) if file.is_file() else []
    return int(found[-1]) if found else 0


def being_saved(folder: Path) -> list[Path]:
    """Checkpoints of which the save has begun, and is not complete."""
    return [path for _, path in numbered(folder) if cut_off([path])] if folder.is_dir() else []


def cut_off(checkpoints: list[Path]) -> bool:
    """Whether one of them is not complete."""
    return any((c / SAVING).exists() and not (c / MANIFEST).exists() for c in checkpoints)


def check_folder(folder: Path) -> None:
    """Whatever happened, of two checkpoints that were kept one is whole."""
    if len(kept := numbered(folder)) > 1:
        assert any(problem(path) is None for _, path in kept), [problem(p) for _, p in kept]


def leave_alone(
    folder: Path, *, steps: int, save_steps: int, processes: int, logging_steps: int = 1
) -> float:
    """The same run from its first step to its last, and how long it took."""
    began = time.monotonic()
    arguments = [str(folder), *map(str, (steps, save_steps, logging_steps))]
    codes = Processes(processes, arguments, folder.with_suffix(".log")).wait()
    assert not any(codes), f"exit codes {codes}, see {folder.with_suffix('.log')}"
    return time.monotonic() - began


def same_student(first: Path, second: Path) -> bool:
    """Whether two runs ended with the same weights, bit for bit."""
    return (first / STUDENT).read_bytes() == (second / STUDENT).read_bytes()


def growth(folder: Path) -> float:
    """MiB that the resident memory of an undisturbed run grew by in 100 steps of its last half."""
    steps, held = np.loadtxt(folder / RSS, ndmin=2).T
    half = steps >= steps.max() / 2
    return float(np.polyfit(steps[half], held[half], 1)[0] * 100 / 2**20)
