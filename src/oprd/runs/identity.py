"""What a run is, and what of it a resume may change.

A resumed run goes on towards what it began with. Some things it keeps (the models, what is compared
and by which loss), others it may change and says so (prompts, schedule, seed, processes), and what
only shows or saves it may change as it likes.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from oprd.runs.checkpoints import checkpoint_step
from oprd.runs.kept import (
    KEPT_FACTS,
    KEPT_SETTINGS,
    LENGTHS,
    MODELS,
    OVER_RUN,
    OVER_STAGE,
    SAID_FACTS,
    SEVERAL,
    may_change,
)
from oprd.runs.limits import MOST
from oprd.runs.lines import is_number
from oprd.runs.manifest import read_manifest
from oprd.runs.record import read_record
from oprd.runs.shares import in_steps
from oprd.text import one_line, shortened

# What a model says of itself where nobody knows it, and settings that are not given.
UNKNOWN, NOT_GIVEN = (None, ""), (None, "", {}, [])
# Longest value in a message.
LONGEST = 120


@dataclass(frozen=True)
class Change:
    """Something that a resumed run has otherwise than it began.

    Attributes:
        name: a setting, or a fact about the run.
        before: its value when the checkpoint was saved.
        now: its value from here on.
        refused: whether a run keeps it.
    """

    name: str
    before: Any
    now: Any
    refused: bool

    def words(self) -> str:
        """Both values."""
        before, now = (shortened(one_line(repr(v)), LONGEST) for v in (self.before, self.now))
        return f"{self.name} (began with {self.name}={before}, now {now})"

    def fact(self) -> dict[str, Any]:
        """For a run's record."""
        return {name: v for name, v in asdict(self).items() if name != "refused"}


def changes(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    settings_before: Mapping[str, Any],
    settings_now: Mapping[str, Any],
) -> list[Change]:
    """What differs. What either side does not say is passed over, and an empty setting is none.

    What changes over a share of the run is another in a run of another length.

    Args:
        before: facts when the checkpoint was saved.
        now: those of the run that is to go on.
        settings_before: likewise.
        settings_now: likewise.
    """
    before, now = _plain(before), _plain(now)
    settings_before, settings_now = _over_steps(_plain(settings_before), _plain(settings_now))
    found = []
    for name in (*KEPT_FACTS, *SAID_FACTS):
        values = before.get(name), now.get(name)
        if None not in values and not _same(name, *values):
            found.append(Change(name, *values, refused=name in KEPT_FACTS))
    constant = str(settings_now.get("lr_scheduler_type")) == "constant"
    lengths = () if constant else LENGTHS
    both = [name for name in settings_before if name in settings_now]
    for name in sorted(both, key=lambda name: name not in KEPT_SETTINGS):
        values = settings_before[name], settings_now[name]
        told = name in lengths or not may_change(name)
        if told and _given(values[0]) != _given(values[1]):
            found.append(Change(name, *values, refused=name in KEPT_SETTINGS))
    return found


def check_changes(found: Iterable[Change], checkpoint: str, allowed: Iterable[str]) -> None:
    """Refuse to go on as another run.

    Args:
        found: of `changes`.
        checkpoint: from which it is to go on.
        allowed: names of what may change although a run keeps it.

    Raises:
        ValueError: something else differs that a run keeps; the message names all of it.
    """
    refused = [change for change in found if change.refused and change.name not in set(allowed)]
    if not refused:
        return
    names = ",".join(change.name for change in refused)
    raise ValueError(
        f"the run of {checkpoint!r} would go on as another one: "
        f"{', '.join(change.words() for change in refused)}. Give what it began with, start anew "
        f"in another --output_dir, or allow it with --allow_changed {names} where it is meant."
    )


def as_it_began(checkpoint: Path) -> dict[str, Any]:
    """`step`, `settings` and `facts` of the run that saved a complete checkpoint.

    A checkpoint of an earlier version has no manifest, and what it is stands in the record beside.

    Raises:
        ValueError: the record beside it cannot be read.
    """
    if (manifest := read_manifest(checkpoint)) is not None:
        return {"settings": {}, "facts": {}, **manifest, "step": checkpoint_step(checkpoint)}
    record = read_record(checkpoint.parent) or {}
    settings, changed = record.get("settings"), record.get("changed")
    identity = {
        "identity": facts_of_record(record),
        "changed": changed if isinstance(changed, list) else [],
    }
    return {
        "step": checkpoint_step(checkpoint),
        "settings": settings if isinstance(settings, dict) else {},
        "facts": {**record, **identity},
    }


def facts_of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of `changes` as far as the record of an earlier version has them."""
    found = {name: {"source": record[name]} for name in MODELS if record.get(name)}
    named = {"layer_pairs": "layer_pairs", "bridge_hashes": "bridges"}
    return found | {name: record[old] for old, name in named.items() if old in record}


def _same(name: str, before: Any, now: Any) -> bool:
    """Models by their weights where both are known; of other mappings what both of them say."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return before == now
    if name in SEVERAL:
        # Each under its own name; without names there is one.
        found = [_named(value) for value in (before, now)]
        return found[0].keys() == found[1].keys() and all(
            _same(SEVERAL[name], value, found[1][key]) for key, value in found[0].items()
        )
    both = before.keys() & now.keys()
    if name in MODELS:
        weights = before.get("weights"), now.get("weights")
        if all(weights):
            return weights[0] == weights[1]
        # A model that was built in memory has no name.
        both = {n for n in both if before[n] not in UNKNOWN and now[n] not in UNKNOWN}
    return all(before[n] == now[n] for n in both)


def _named(value: dict[str, Any]) -> dict[str, Any]:
    """Facts by the name of one of several teachers."""
    return value if all(isinstance(own, dict) for own in value.values()) else {"": value}


def _given(value: Any) -> Any:
    return None if value in NOT_GIVEN else value


def _over_steps(*several: dict[str, Any]) -> list[dict[str, Any]]:
    """Settings in which what changes over shares of the run does so over steps of it.

    As they are where the length of one of these runs is not known.
    """
    lengths = [settings.get("max_steps") for settings in several]
    if not all(type(length) is int and 0 < length <= MOST for length in lengths):
        return [*several]
    return [settings | _schedules(settings) for settings in several]


def _schedules(settings: Mapping[str, Any]) -> dict[str, Any]:
    length, found = settings["max_steps"], {}
    for name in OVER_RUN if settings.get("stages") else (*OVER_RUN, *OVER_STAGE):
        given = settings.get(name)
        if not isinstance(given, dict):
            continue
        start, steps = given.get("start"), given.get("steps")
        if is_number(start) and is_number(steps) and min(start, steps) >= 0:
            over = {"start": in_steps(start, length), "steps": in_steps(steps, length, least=1)}
            found[name] = {**given, **over}
    return found


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives them back."""
    return json.loads(json.dumps(dict(values), default=str))
