"""A run's checkpoints: which are complete, from which one it goes on, and which are deleted.

A checkpoint is complete if it is what its manifest says (`runs.manifest`). Training, evaluation and
reports ask here.
"""

import logging
import math
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from oprd.runs.manifest import (
    CUT_OFF,
    MANIFEST,
    SAVING,
    UNKNOWN,
    begin_saving,
    delete_named,
    problem,
    read_manifest,
)
from oprd.text import parse_json

CHECKPOINT = re.compile(r"checkpoint-([0-9]+)")
TRAINER_STATE = "trainer_state.json"
# What a model's weights are called: plain, sharded, adapter, FSDP, DeepSpeed.
WEIGHTS = ("model*.safetensors", "adapter_model*", "pytorch_model*", "global_step*")
RECORDS = ("run.json", "metrics.jsonl")
# What a run leaves beside its checkpoints.
LEFT = (*RECORDS, "model.safetensors", "adapter_model.safetensors", "best")
WEIGHTS_ALONE = (
    "it holds weights alone (save_only_model), and neither an optimizer nor random states to go on "
    "with"
)
STUDENT_ALONE = (
    f"it holds a student alone, without a {TRAINER_STATE} to go on with: name one of the run's "
    "checkpoints, RUN/checkpoint-N, or train this student in a new run as its model"
)
# Words for a checkpoint that is to be found, and for none.
NEWEST, ANEW = ("auto", "true"), ("false", "none")

logger = logging.getLogger(__name__)


def find_checkpoint(output_dir: Path, wanted: str | bool | None, *, say: bool = True) -> str | None:
    """The checkpoint to resume from, or None to start from the beginning.

    Args:
        output_dir: where the run saves its checkpoints.
        wanted: `"auto"` or true for the newest complete checkpoint if there is one; a path; None or
            false to start anew. True and false may be text, as a command line has them.
        say: whether what was skipped is told.

    Raises:
        ValueError: the checkpoint at the path is not complete; or there are checkpoints, and every
            one that was complete is damaged now, so that to start anew would lose the run.
    """
    word = str(wanted or "false").lower()
    if word in ANEW:
        return None
    if word in NEWEST:
        newest = newest_checkpoint(output_dir, resumed=True, say=say)
        return None if newest is None else str(newest)
    path = str(wanted)
    found = _resume_problem(Path(path))
    if found == UNKNOWN and (found := _unknown_problem(Path(path))) is None and say:
        _say(
            f"{path!r} has no {MANIFEST}, by which its files could be checked: it is gone on from "
            "as it is."
        )
    if found is not None:
        raise ValueError(f"cannot resume from checkpoint {path!r}: {found}.")
    return path


def newest_checkpoint(
    output_dir: Path,
    *,
    fits: Callable[[Path], bool] = Path.is_dir,
    resumed: bool = False,
    contents: bool = True,
    say: bool = True,
) -> Path | None:
    """A run's newest complete checkpoint; those that are passed over are named in one line.

    Args:
        output_dir: of the run.
        fits: what it must be besides.
        resumed: whether the run is to go on from it, and must not lose what it had.
        contents: whether every byte is read.
        say: whether what was passed over is told.

    Raises:
        ValueError: with `resumed`, none is complete, and one of them was.
    """
    skipped: dict[Path, str] = {}
    newest = None
    for path in _newest_first(output_dir):
        found = _resume_problem(path) if resumed else problem(path, contents=contents)
        if found is not None:
            skipped[path] = found
        elif fits(path):
            newest = path
            break
    # Where one without a manifest stands in time can only be told by its step.
    named = [path for path in skipped if newest is None or _step(path) > _step(newest)]
    text = ", ".join(f"{path.name} ({skipped[path]})" for path in named)
    if resumed and newest is None and any(found != CUT_OFF for found in skipped.values()):
        raise ValueError(
            f"no checkpoint in {str(output_dir)!r} can be gone on from: {text}. Name one by its "
            "path with --resume_from_checkpoint, start anew with --overwrite, or choose another "
            "--output_dir."
        )
    if named and say:
        _say(f"skipped in {str(output_dir)!r}: {text}.")
    return newest


def begin_checkpoint(checkpoint: Path) -> None:
    """Make the folder of a save; what an earlier one left there is deleted."""
    if checkpoint.is_symlink():
        checkpoint.unlink()
    _delete(checkpoint)
    begin_saving(checkpoint)


def delete_cut_off(output_dir: Path) -> None:
    """Delete saves that were never completed; for the one process that saves in the folder."""
    for _, path in numbered(output_dir):
        if _is_cut_off(path):
            shutil.rmtree(path, ignore_errors=True)


def rotate(output_dir: Path, limit: int | None, best: str | None = None) -> None:
    """Delete the oldest complete checkpoints.

    Args:
        output_dir: of the run.
        limit: how many complete ones stay; None or 0 for all.
        best: one that stays besides the newest.
    """
    if not limit:
        return
    complete = [p for p in _newest_first(output_dir) if problem(p, contents=False) is None]
    kept = {path.resolve() for path in complete[:1]}
    kept |= {Path(best).resolve()} if best else set()
    for path in complete:
        if len(kept) < limit:
            kept.add(path.resolve())
    for path in complete:
        if path.resolve() not in kept and not path.is_symlink():
            _delete(path)


def next_start(output_dir: Path) -> int:
    """How many times a run has begun in a folder, this time included.

    Checkpoints of a later start are newer than those of an earlier one, whatever their steps: a run
    that goes back to an earlier step does not go on from a later one of before.
    """
    starts = [_start(path) for _, path in numbered(output_dir)]
    return 1 + max((start for start in starts if start is not None), default=0)


def checkpoint_step(checkpoint: Path) -> int:
    """The step after which a complete checkpoint was saved."""
    manifest = read_manifest(checkpoint)
    if manifest is not None and "step" in manifest:
        return manifest["step"]
    return parse_json((checkpoint / TRAINER_STATE).read_bytes())["global_step"]


def check_may_start_anew(output_dir: Path) -> None:
    """Refuse, with a ValueError, to mix a new run with the checkpoints of another."""
    found = [path.name for _, path in numbered(output_dir) if not _is_cut_off(path)]
    if found:
        names = ", ".join(found[:3]) + (" …" if len(found) > 3 else "")
        raise ValueError(
            f"{str(output_dir)!r} holds checkpoints of an earlier run ({names}), and this one "
            "would start anew among them. To go on with the earlier run, give "
            "--resume_from_checkpoint auto; to replace it, --overwrite; to keep it, another "
            "--output_dir."
        )


def earlier_run(output_dir: Path) -> str | None:
    """What a run that starts anew in a used folder must know; None where nothing is there."""
    found = [name for name in LEFT if (output_dir / name).exists()]
    if not found:
        return None
    return (
        f"{str(output_dir)!r} holds an earlier run ({', '.join(found)}) without checkpoints to go "
        "on from, and this one starts anew in it: its records take the place of the earlier ones. "
        "To keep those, give another --output_dir."
    )


def clear_run(output_dir: Path, best: str) -> list[str]:
    """Delete what the records and manifests of a run name, and nothing else.

    Args:
        output_dir: of the run.
        best: the name of the folder of its best student.

    Returns:
        What of it is left, because nothing names it.
    """
    folders = _saved(output_dir, best)
    delete_cut_off(output_dir)
    for folder in [*folders, output_dir]:
        with suppress(ValueError):
            delete_named(folder)
    for name in RECORDS:
        (output_dir / name).unlink(missing_ok=True)
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
    return [folder.name for folder in folders if folder.is_dir()]


def bytes_of_run(output_dir: Path, best: str) -> int:
    """How much room there is once `clear_run` has been; see there."""
    named = [output_dir / name for name in RECORDS]
    for folder in [*_saved(output_dir, best), output_dir]:
        with suppress(ValueError):
            named += [folder / name for name in (read_manifest(folder) or {}).get("files", ())]
        if folder != output_dir and _is_cut_off(folder):
            named += [path for path in folder.rglob("*") if path.is_file()]
    return sum(file.stat().st_size for file in set(named) if file.is_file())


def _saved(output_dir: Path, best: str) -> list[Path]:
    """Where models of a run are, beside its own folder."""
    return [*(path for _, path in numbered(output_dir)), output_dir / best]


def numbered(output_dir: Path) -> list[tuple[int, Path]]:
    """A run's checkpoints with their steps, the highest first."""
    found = [
        (int(match[1]), path)
        for path in output_dir.glob("checkpoint-*")
        if (match := CHECKPOINT.fullmatch(path.name)) and path.is_dir()
    ]
    return sorted(found, reverse=True)


# A command looks before it loads models, and again when training begins.
@lru_cache(maxsize=64)
def _say(text: str) -> None:
    logger.warning("%s", text)


def _newest_first(output_dir: Path) -> list[Path]:
    return sorted((path for _, path in numbered(output_dir)), key=_age, reverse=True)


def _age(checkpoint: Path) -> tuple[float, int]:
    """Its start and its step; what does not say its start is looked at first."""
    start = _start(checkpoint)
    return math.inf if start is None else start, _step(checkpoint)


def _start(checkpoint: Path) -> int | None:
    try:
        manifest = read_manifest(checkpoint)
    except ValueError:
        return None
    return manifest.get("start") if manifest else None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _is_cut_off(checkpoint: Path) -> bool:
    return (checkpoint / SAVING).exists() and not (checkpoint / MANIFEST).exists()


def _delete(checkpoint: Path) -> None:
    """Delete a checkpoint, of which nothing that is left counts should that be cut off."""
    if checkpoint.exists():
        begin_saving(checkpoint)
        shutil.rmtree(checkpoint)


def _resume_problem(checkpoint: Path) -> str | None:
    if found := problem(checkpoint):
        return found
    manifest = read_manifest(checkpoint) or {}
    if TRAINER_STATE not in manifest["files"]:
        return STUDENT_ALONE
    return WEIGHTS_ALONE if manifest.get("settings", {}).get("save_only_model") else None


def _unknown_problem(checkpoint: Path) -> str | None:
    """What a checkpoint without a manifest lacks, None where nothing that can be seen.

    Transformers writes the trainer's state last, so that a cut-off save has none.
    """
    if not any(p.is_dir() or p.stat().st_size for w in WEIGHTS for p in checkpoint.glob(w)):
        return "it holds no model weights"
    try:
        state = parse_json((checkpoint / TRAINER_STATE).read_bytes())
        complete = type(state["global_step"]) is int
    except FileNotFoundError:
        return f"it has no {TRAINER_STATE}, so that its save was cut off"
    except (ValueError, KeyError, TypeError):
        complete = False
    return None if complete else f"its {TRAINER_STATE} is damaged"
