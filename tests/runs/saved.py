"""Checkpoints as a run leaves them, without a model."""

import json
from pathlib import Path
from typing import Any

from oprd.runs.manifest import begin_saving, write_manifest


def checkpoint(run: Path, step: int, *, complete: bool = True, **facts: Any) -> Path:
    """One of a run, with files of every kind."""
    folder = run / f"checkpoint-{step}"
    begin_saving(folder)
    (folder / "model.safetensors").write_bytes(b"weights" * step)
    (folder / "optimizer.pt").write_bytes(b"moments")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    (folder / "inner").mkdir()
    (folder / "inner" / "shard").write_bytes(b"piece")
    if complete:
        write_manifest(folder, {"step": step, "start": 1, **facts})
    return folder


def without_manifest(run: Path, step: int) -> Path:
    """One that an earlier version saved."""
    folder = checkpoint(run, step)
    (folder / "manifest.json").unlink()
    return folder
