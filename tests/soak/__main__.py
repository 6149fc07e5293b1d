"""The whole soak: 2,000 steps under 30 kills and more, in one process and in two; see `soak`.

    python -m tests.soak [--steps 2000] [--kills 30] [--folder runs/soak] [--write]

With --write, what was found takes its place in `docs/reliability.md`.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from tests.reliability.page import SOAK, rewrite
from tests.soak.soak import growth, leave_alone, same_student, soak

# MiB of resident memory in 100 steps.
MOST_GROWTH = 1.0
INTRODUCTION = """\
## The soak

`make soak`, as it was found last: {steps:,} steps of a model of two layers, with dropout, Adam and
responses that it samples, saved every {save_steps} steps. One run is left alone; another is killed
at random by SIGKILL, a third of the time within a save, finds the disk full before a save or within
one, is asked to end by SIGTERM, and is started again each time until it has made its steps.

| processes | what happened | starts | weights | memory per 100 steps of the last half | minutes |
|---|---|---|---|---|---|
"""


def main() -> None:
    """Print what was found; fail where a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--save_steps", type=int, default=20)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/soak"))
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    rows, kept = [], True
    for count in args.processes:
        row, held = soaked(args, count)
        rows.append(row)
        kept &= held
        print(row, flush=True)
    silent = {"steps": args.steps, "save_steps": args.save_steps, "logging_steps": args.steps}
    leave_alone(args.folder / "silent", **silent, processes=1)
    said = (
        f"Where nothing is logged before the last step, memory grows by "
        f"{growth(args.folder / 'silent'):+.3f} MiB per 100 steps: the rest is the history of the "
        "log, which Transformers keeps and saves."
    )
    print(said)
    if args.write:
        introduction = INTRODUCTION.format(steps=args.steps, save_steps=args.save_steps)
        SOAK.write_text(introduction + "\n".join(rows) + f"\n\n{said}\n")
        rewrite()
    raise SystemExit(not kept)


def soaked(args: Any, count: int) -> tuple[str, bool]:
    """A row of the page for so many processes, and whether all was kept."""
    alone, disturbed = (args.folder / f"{name}-{count}" for name in ("alone", "disturbed"))
    run = {"steps": args.steps, "save_steps": args.save_steps, "processes": count}
    seconds = leave_alone(alone, **run)
    found = soak(disturbed, **run, kills=args.kills, seed=args.seed)
    same, grew = same_student(alone, disturbed), growth(alone)
    happened = ", ".join(f"{number} × {fault}" for fault, number in sorted(found.faults.items()))
    equal = "the same, bit for bit" if same else "**different**"
    minutes = f"{found.seconds / 60:.0f}, and {seconds / 60:.0f} left alone"
    row = f"| {count} | {happened} | {found.starts} | {equal} | {grew:+.3f} MiB | {minutes} |"
    killed = found.kills >= args.kills and 3 * found.faults["kill in a save"] >= args.kills
    return row, same and grew < MOST_GROWTH and killed


if __name__ == "__main__":
    main()
