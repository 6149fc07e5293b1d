"""Which checkpoints of a run are complete, and from which one it goes on."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

# What a model's weights are called: plain, sharded, adapter, FSDP, DeepSpeed.
WEIGHTS = ("model*.safetensors", "adapter_model*", "pytorch_model*", "global_step*")

logger = logging.getLogger(__name__)


def find_checkpoint(output_dir: Path, wanted: str | None) -> str | None:
    """The checkpoint to resume from, or None to start from the beginning.

    Args:
        output_dir: where the run saves its checkpoints.
        wanted: None to start anew, `"auto"` for the newest complete checkpoint if there is one, or
            a path.

    Raises:
        ValueError: the checkpoint at the path is not complete.
    """
    if wanted is None:
        return None
    if wanted != "auto":
        if missing := missing_part(Path(wanted)):
            raise ValueError(f"cannot resume from checkpoint {wanted!r}: {missing}.")
        return wanted
    newest = next(complete_checkpoints(output_dir), None)
    return None if newest is None else str(newest)


def complete_checkpoints(output_dir: Path) -> Iterator[Path]:
    """A run's complete checkpoints, the newest first; one that is passed over is named in a log."""
    numbered = {
        int(found[1]): path
        for path in output_dir.glob("checkpoint-*")
        if (found := re.fullmatch(r"checkpoint-([0-9]+)", path.name))
    }
    for _, checkpoint in sorted(numbered.items(), reverse=True):
        missing = missing_part(checkpoint)
        if missing is None:
            yield checkpoint
        else:
            logger.warning("skipped checkpoint %r: %s.", str(checkpoint), missing)


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
