"""Which checkpoint a run goes on from."""

import json
import logging
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
    numbered = {int(p.name.rpartition("-")[2]): p for p in output_dir.glob("checkpoint-*[0-9]")}
    for _, checkpoint in sorted(numbered.items(), reverse=True):
        missing = missing_part(checkpoint)
        if missing is None:
            return str(checkpoint)
        logger.warning("skipped checkpoint %r: %s.", str(checkpoint), missing)
    return None


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
