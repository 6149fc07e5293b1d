"""The best student of a run: how it takes the place of the one before, and what it reached."""

import shutil
from pathlib import Path

from oprd.runs.lines import read_lines
from oprd.runs.manifest import problem
from oprd.runs.metrics import METRICS
from oprd.runs.record import BEST, read_best, read_best_record

# While one takes the place of another: the new one, and the one before.
PARTIAL, OLD = f"{BEST}.partial", f"{BEST}.old"


def replace_best(run: Path) -> None:
    """Let the new student of a run be its best; the one before goes when that is in its place."""
    best, partial, old = run / BEST, run / PARTIAL, run / OLD
    shutil.rmtree(old, ignore_errors=True)
    if best.exists():
        best.rename(old)
    partial.rename(best)
    shutil.rmtree(old, ignore_errors=True)


def put_back_best(run: Path, step: int) -> None:
    """Give the best student its name again, where a run was killed while one replaced another.

    That is the newer of both, unless it is of a step that the run goes back behind.
    """
    if (run / BEST).exists():
        return
    records = [(left, read_best_record(left)) for left in (run / OLD, run / PARTIAL)]
    steps = {left: found["step"] for left, found in records if found}
    whole = [left for left in steps if problem(left) is None]
    reached = [left for left in whole if steps[left] <= step]
    if whole:
        (reached or whole)[-1].rename(run / BEST)


def best_so_far(run: Path, figure: str, step: int) -> tuple[float, int]:
    """The highest figure of a run up to a step, and how many that are no higher follow it there.

    Minus infinity and 0 where the best student is none by this figure.
    """
    nothing = float("-inf"), 0
    best, name = read_best(run), f"eval/{figure}"
    if best is None or best["figure"] != figure:
        return nothing
    lines = [line for line in read_lines(run / METRICS) if line["step"] <= step]
    # One that was reached only later says nothing.
    figures = {best["step"]: best["value"]} if best["step"] <= step else {}
    figures |= {line["step"]: line[name] for line in lines if name in line}
    if not figures:
        return nothing
    highest = max(figures, key=lambda at: figures[at])
    return figures[highest], sum(at > highest for at in figures)
