"""What `push_to_hub` uploads: the student with its card, and checkpoints; nothing else of a run.

Transformers uploads a run's folder but for a few names, and prompts, rollouts and settings stand
there too.
"""

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from transformers import trainer

from oprd.runs.manifest import CARD, MANIFEST, read_manifest

# Of a checkpoint, what is not the student: what its trainer goes on with.
TRAINERS = (
    "optimizer*",
    "scheduler.*",
    "scaler.*",
    "rng_state*",
    "trainer_state.json",
    "training_args.bin",
    "global_step*",
    "latest",
    "zero_to_fp32.py",
    "pytorch_model_fsdp*",
)


def students_files(saved: Path) -> list[str]:
    """The files of a student in a folder that is complete, relative to it."""
    return [
        name for name in _files(saved) if not any(fnmatch(name, pattern) for pattern in TRAINERS)
    ]


def _files(saved: Path) -> list[str]:
    return sorted((read_manifest(saved) or {"files": ()})["files"])


@contextmanager
def chosen_uploads(run: Path, saved: Path) -> Iterator[None]:
    """In the block, Transformers uploads of a run's folder the student and its card alone.

    Of another folder, a checkpoint's, it uploads what the manifest names, and the manifest.

    Args:
        run: the folder of the run.
        saved: the folder whose manifest says which files are the student's; asked when something
            is uploaded.
    """
    hub = trainer.hf_api
    trainer.hf_api = lambda: _Hub(hub(), run, saved)
    try:
        yield
    finally:
        trainer.hf_api = hub


class _Hub:
    """A hub's interface that uploads chosen files."""

    def __init__(self, hub: Any, run: Path, saved: Path) -> None:
        self._hub, self._run, self._saved = hub, run, saved

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hub, name)

    def upload_folder(self, *, folder_path: str | Path, **options: Any) -> Any:
        folder = Path(folder_path)
        if folder.resolve() == self._run.resolve():
            names = [*students_files(self._saved), CARD]
        else:
            names = [*_files(folder), MANIFEST]
        only = [glob.escape(name) for name in names]
        return self._hub.upload_folder(folder_path=folder_path, allow_patterns=only, **options)
