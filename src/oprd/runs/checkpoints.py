"""Which checkpoints of a run are complete, and from which one it goes on."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

# What a model's weights are called: plain, sharded, adapter, FSDP, DeepSpeed.
WEIGHTS = ("model*.safetensors", "adapter_model*", "pytorch_model*", "global_step*")

CHECKPOINT = re.compile(r"checkpoint-([0-9]+)")

# What a run leaves beside its checkpoints.
LEFT = ("run.json", "metrics.jsonl", "model.safetensors", "adapter_model.safetensors", "best")

logger = logging.getLogger(__name__)


def find_checkpoint(output_dir: Path, wanted: str | bool | None) -> str | None:
    """The checkpoint to resume from, or None to start from the beginning.

    Args:
        output_dir: where the run saves its checkpoints.
        wanted: `"auto"` or true for the newest complete checkpoint if there is one; a path; None or
            false to start anew. True and false may be text, as a command line has them.

    Raises:
        ValueError: the checkpoint at the path is not complete.
    """
    word = str(wanted or "false").lower()
    if word == "false":
        return None
    if word not in ("auto", "true"):
        path = str(wanted)
        if missing := missing_part(Path(path)):
            raise ValueError(f"cannot resume from checkpoint {path!r}: {missing}.")
        return path
    newest = next(complete_checkpoints(output_dir), None)
    return None if newest is None else str(newest)


def complete_checkpoints(output_dir: Path) -> Iterator[Path]:
    """A run's complete checkpoints, the newest first; one that is passed over is named in a log."""
    for _, checkpoint in _numbered(output_dir):
        missing = missing_part(checkpoint)
        if missing is None:
            yield checkpoint
        else:
            logger.warning("skipped checkpoint %r: %s.", str(checkpoint), missing)


def earlier_run(output_dir: Path) -> str | None:
    """What a run that starts anew in a used folder must know; None where nothing is there."""
    found = [name for name in LEFT if (output_dir / name).exists()]
    if checkpoints := _numbered(output_dir):
        found.insert(0, f"checkpoints up to step {checkpoints[0][0]}")
    if not found:
        return None
    return (
        f"{str(output_dir)!r} holds an earlier run ({', '.join(found)}), and this one starts anew "
        "in it: its records take the place of the earlier ones, and checkpoints stay, of which a "
        "later auto would take the highest step. To go on with the earlier run, give "
        "--resume_from_checkpoint auto; to keep it, give another --output_dir."
    )


def _numbered(output_dir: Path) -> list[tuple[int, Path]]:
    """A run's checkpoints with their steps, the newest first."""
    numbered = [
        (int(found[1]), path)
        for path in output_dir.glob("checkpoint-*")
        if (found := CHECKPOINT.fullmatch(path.name))
    ]
    return sorted(numbered, reverse=True)


def missing_part(checkpoint: Path) -> str | None:
    """What a checkpoint lacks, None where it is complete.

    The trainer writes its state last, so that a cut-off save has none.
    """
    if not checkpoint.is_dir():
        return "there is no such folder"
    if not any(p.is_dir() or p.stat().st_size for w in WEIGHTS for p in checkpoint.glob(w)):
        return "it holds no model weights"
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_bytes())
        complete = isinstance(state["global_step"], int)
    except FileNotFoundError:
        return "it has no trainer_state.json, so that its save was cut off"
    except (ValueError, KeyError, TypeError):
        complete = False
    return None if complete else "its trainer_state.json is damaged"
