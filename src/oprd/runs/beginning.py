"""Where a run begins: anew, or from a checkpoint, as the run that this one is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oprd.runs.checkpoints import NEWEST, check_may_start_anew, find_checkpoint
from oprd.runs.identity import Change, as_it_began, changes, check_changes


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Attributes:
        folder: of the run.
        checkpoint: of `find_checkpoint`.
        settings: of the run, as they are recorded.
        max_steps: its last step; -1 where that is not known yet.
        overwrite: whether it takes the place of another run.
        allowed: what of the run may be another, although a run keeps it.
    """

    folder: Path
    checkpoint: str | bool | None
    settings: Mapping[str, Any]
    max_steps: int = -1
    overwrite: bool = False
    allowed: Sequence[str] = ()


@dataclass(frozen=True)
class Beginning:
    """Where a run begins.

    Attributes:
        checkpoint: from which it goes on; None where it begins anew.
        step: of that.
        facts: what the run that saved it knew of itself.
        changes: what is otherwise from here on.
    """

    checkpoint: str | None = None
    step: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    changes: Sequence[Change] = ()

    def record(self) -> dict[str, Any]:
        """For the record of a run that goes on."""
        changed = [{"step": self.step, **change.fact()} for change in self.changes]
        return {
            "resumed_from": self.checkpoint,
            "changed": [*self.facts.get("changed", ()), *changed],
        }


def find_beginning(wanted: Wanted, facts: Mapping[str, Any] | None = None) -> Beginning:
    """Find the checkpoint to go on from, and compare this run with the one that saved it.

    Args:
        wanted: what is asked for.
        facts: of this run (`runs.identity`); before models are loaded there are none.

    Raises:
        ValueError: the checkpoint is not complete, is of another run or beyond its end; or a run
            is to begin in a folder that holds another one.
    """
    checkpoint = find_checkpoint(wanted.folder, wanted.checkpoint)
    place = wanted.folder.resolve()
    inside = checkpoint is not None and Path(checkpoint).resolve().parent == place
    if wanted.overwrite and (inside or str(wanted.checkpoint).lower() in NEWEST):
        raise ValueError(
            f"overwrite starts anew, and resume_from_checkpoint={wanted.checkpoint} goes on in the "
            "same folder: give one of them."
        )
    if not inside and not wanted.overwrite:
        check_may_start_anew(wanted.folder)
    if checkpoint is None:
        return Beginning()
    before = as_it_began(Path(checkpoint))
    if 0 < wanted.max_steps < before["step"]:
        raise ValueError(
            f"{checkpoint!r} is of step {before['step']}, beyond max_steps={wanted.max_steps}: go "
            "on from an earlier checkpoint, or set more steps."
        )
    known = before["facts"].get("identity", {})
    found = changes(known, facts or {}, before["settings"], wanted.settings)
    check_changes(found, checkpoint, wanted.allowed)
    return Beginning(checkpoint, before["step"], before["facts"], found)
