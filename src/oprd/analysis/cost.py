"""What one update costs: seconds from interleaved rounds, memory from fresh processes.

All objectives take turns in one process, in an order that rotates from round to round, and a ratio
is taken within its round: a machine whose speed drifts slows both. The points of a sweep take turns
in the same rounds.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from oprd.analysis.choice import choose_objectives
from oprd.analysis.machine import machine
from oprd.analysis.memory import FRESH_PROCESS, transient_bytes
from oprd.analysis.others import NAIVE_TOP
from oprd.analysis.setup import Models, Scene, Setup
from oprd.analysis.updates import all_objectives
from oprd.runs.record import versions

WARM_UP_ROUNDS = 1
# What a sweep varies, and between which values unless others are asked for.
SWEEPS: dict[str, tuple[str, tuple[int, ...]]] = {
    "vocab": ("vocab_size", (16384, 49152, 151936)),
    "length": ("response_length", (112, 224, 448)),
    "layers": ("layers_count", (6, 12, 24)),
    "window": ("window", (28, 112, 448)),
}

Notify = Callable[[str], None]
Case = tuple[int, str]


def sweep_setups(setup: Setup, sweep: str, values: Sequence[int] = ()) -> list[Setup]:
    """The setup at each value of a sweep.

    Raises:
        ValueError: the sweep is unknown, or a value does not fit the setup.
    """
    if sweep not in SWEEPS:
        raise ValueError(f"sweep must be one of {', '.join(SWEEPS)}, got {sweep!r}.")
    field, defaults = SWEEPS[sweep]
    return [replace(setup, **{field: value}) for value in values or defaults]


def measure_cost(
    setups: Sequence[Setup],
    objectives: Sequence[str] | None = None,
    *,
    sweep: str | None = None,
    rounds: int = 5,
    memory: bool = True,
    notify: Notify = lambda text: None,
) -> dict[str, Any]:
    """Measure objectives on each setup.

    Args:
        setups: one, or the points of a sweep.
        objectives: names in `all_objectives`, all that the models permit by default; their floors
            are always among what is measured.
        sweep: what the setups vary, a name in `SWEEPS`.
        rounds: how often each update is timed, after a round of warm-up; 0 times nothing.
        memory: whether to measure memory.
        notify: told what was just measured, and what is left out.

    Returns:
        What `oprd bench` writes as JSON: machine, rounds, and for each point its setup and a list
        of objectives with seconds, bytes, and ratios to the floor and to naive top-16.

    Raises:
        ValueError: an objective is unknown, or a model cannot be measured as asked; nothing has
            been measured then.
    """
    if rounds < (0 if memory else 1):
        raise ValueError(f"rounds must be at least 1, or 0 to measure memory alone, got {rounds}.")
    names = choose_objectives(setups, objectives, notify)
    cases = [(place, name) for place in range(len(setups)) for name in names]
    peaks: dict[Case, int] = {}
    for place, name in cases if memory else ():
        peaks[place, name] = bytes_in_fresh_process(setups[place], name)
        notify(f"{_label(setups[place], name)}: {peaks[place, name] / 2**20:.0f} MiB")
    seconds = _time_rounds(setups, cases, rounds, notify) if rounds else {}
    field = SWEEPS[sweep][0] if sweep else None
    return {
        "machine": machine(),
        "versions": versions(),
        "warm_up_rounds": WARM_UP_ROUNDS,
        "rounds": rounds,
        "sweep": field,
        "points": [
            {
                "value": getattr(setup, field) if field else None,
                "setup": asdict(setup),
                "objectives": [_entry(setup, place, name, seconds, peaks) for name in names],
            }
            for place, setup in enumerate(setups)
        ],
    }


def bytes_in_fresh_process(setup: Setup, name: str) -> int:
    """The transient memory of an objective's update, in a process that does nothing else.

    Raises:
        ChildProcessError: the process failed.
    """
    order = {"setup": asdict(setup), "objective": name, "threads": torch.get_num_threads()}
    done = subprocess.run(
        [sys.executable, "-m", "oprd.analysis.cost"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        env={**os.environ, **FRESH_PROCESS},
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ChildProcessError(
            f"measuring the memory of {name} failed ({reason[0]}): if memory ran out, leave it "
            "out of --objectives."
        )
    return int(done.stdout.splitlines()[-1])


def _time_rounds(
    setups: Sequence[Setup], cases: Sequence[Case], rounds: int, notify: Notify
) -> dict[Case, list[float]]:
    """Seconds of each case in each round."""
    scenes = _scenes(setups)
    runs = {(place, name): all_objectives()[name].prepare(scenes[place]) for place, name in cases}
    seconds: dict[Case, list[float]] = {case: [] for case in cases}
    for turn in range(WARM_UP_ROUNDS + rounds):
        start = turn % len(cases)
        for case in [*cases[start:], *cases[:start]]:
            began = _now(scenes[0])
            runs[case]()
            # The first round allocates gradients and warms caches.
            if turn >= WARM_UP_ROUNDS:
                seconds[case].append(_now(scenes[0]) - began)
        notify(f"round {turn + 1} of {WARM_UP_ROUNDS + rounds} done")
    return seconds


def _now(scene: Scene) -> float:
    if scene.student.device.type == "cuda":
        torch.cuda.synchronize(scene.student.device)
    return time.perf_counter()


def _scenes(setups: Sequence[Setup]) -> list[Scene]:
    """A scene for each setup; setups of the same models share them."""
    models: dict[Setup, Models] = {}
    scenes = []
    for setup in setups:
        of_models = replace(setup, batch_size=1, prompt_length=1, response_length=1, window=None)
        if of_models not in models:
            models[of_models] = Models(of_models)
        scenes.append(Scene(setup, models[of_models]))
    return scenes


def _entry(
    setup: Setup,
    place: int,
    name: str,
    seconds: dict[Case, list[float]],
    peaks: dict[Case, int],
) -> dict[str, Any]:
    """What is written about an objective: as measured, and beside the two references."""
    case = (place, name)
    entry: dict[str, Any] = {
        "name": name,
        "label": _label(setup, name),
        "family": all_objectives()[name].family,
        "seconds": _spread(seconds.get(case)),
        "each_round": seconds.get(case),
        "transient_bytes": peaks.get(case),
    }
    own_floor = all_objectives()[name].floor
    for reference, key in ((own_floor, "floor"), (NAIVE_TOP, "naive_topk")):
        other = (place, reference)
        entry[f"time_to_{key}"] = _spread(_ratios(seconds.get(case), seconds.get(other)))
        known = case in peaks and other in peaks
        entry[f"memory_to_{key}"] = peaks[case] / max(1, peaks[other]) if known else None
    # Within a round, like the other ratios: how the cost grows along a sweep.
    first = seconds.get((0, name))
    entry["time_to_first_point"] = _spread(_ratios(seconds.get(case), first))
    return entry


def _label(setup: Setup, name: str) -> str:
    return all_objectives()[name].label.format(
        layers=setup.layers,
        window=setup.window_length,
        teacher_prompt=setup.teacher_prompt_length,
    )


def _ratios(one: list[float] | None, other: list[float] | None) -> list[float] | None:
    return [a / b for a, b in zip(one, other, strict=True)] if one and other else None


def _spread(values: list[float] | None) -> dict[str, float] | None:
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _measure_ordered() -> None:
    """In a fresh process: read what to measure, print the bytes."""
    order = json.load(sys.stdin)
    torch.set_num_threads(order["threads"])
    setup = Setup(**order["setup"])
    scene = Scene(setup, Models(setup))
    run = all_objectives()[order["objective"]].prepare(scene)
    run()
    sys.stdout.write(f"{transient_bytes(run, scene.student.device)}\n")


if __name__ == "__main__":
    _measure_ordered()
