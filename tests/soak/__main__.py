"""The whole soak: 2,000 steps under 30 kills and more, in one process and in two; see `soak`.

python -m tests.soak [--steps 2000] [--kills 30] [--folder runs/soak]
"""

import argparse
import shutil
from pathlib import Path

from tests.soak.soak import growth, leave_alone, same_student, soak

MOST_GROWTH = 1.0


def main() -> None:
    """Print what was found; fail where a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--save_steps", type=int, default=20)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/soak"))
    args = parser.parse_args()
    shutil.rmtree(args.folder, ignore_errors=True)
    args.folder.mkdir(parents=True)
    kept = True
    for count in args.processes:
        alone, disturbed = (args.folder / f"{name}-{count}" for name in ("alone", "disturbed"))
        run = {"steps": args.steps, "save_steps": args.save_steps, "processes": count}
        seconds = leave_alone(alone, **run)
        found = soak(disturbed, **run, kills=args.kills, seed=args.seed)
        same, grew = same_student(alone, disturbed), growth(alone)
        kept &= same and grew < MOST_GROWTH and found.kills >= args.kills
        faults = ", ".join(f"{number} × {fault}" for fault, number in sorted(found.faults.items()))
        print(
            f"{count} process{'es' if count > 1 else ''}, {args.steps:,} steps: {faults}; "
            f"{found.starts} starts; weights {'the same bit for bit' if same else 'DIFFERENT'}; "
            f"memory {grew:+.3f} MiB per 100 steps; {found.seconds / 60:.1f} minutes, and "
            f"{seconds / 60:.1f} undisturbed"
        )
    raise SystemExit(not kept)


if __name__ == "__main__":
    main()
