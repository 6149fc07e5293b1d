"""Pages that say what the code says: every setting of ours, and every command with its options."""

import dataclasses
import json
from typing import Any

from trl import DistillationConfig
from typer.main import get_command

from oprd import OPRDConfig
from oprd.cli.main import app
from oprd.runs import kept

SETTINGS = """\
# All settings

Those that `OPRDConfig` adds to `trl.DistillationConfig`, or has another default for, with their
types, and what becomes of one that is not the same when a run is resumed: **kept**, refused unless
`allow_changed` names it; **said**, used with a warning; **free**. A default that depends on other
settings is shown as none. [Settings of a run](../settings.md) says when to take which.

This page is made of the code when the site is built.

| setting | type | default | on a resume | |
|---|---|---|---|---|
"""
COMMANDS = """\
# Commands

`oprd`, and what each of its commands takes. `oprd train` takes [every setting](all-settings.md) as
an option, those of TRL and Transformers too, with `--config FILE.yaml` and `--preview`;
`oprd train --help` lists them. `oprd --debug` shows the tracebacks of errors.

This page is made of the code when the site is built.
"""


def settings() -> str:
    """A row for every setting of ours."""
    theirs = {field.name: field for field in dataclasses.fields(DistillationConfig)}
    rows = []
    for field in dataclasses.fields(OPRDConfig):
        if field.name in theirs and field.default == theirs[field.name].default:
            continue
        cells = (f"`{field.name}`", f"`{_type(field)}`", _default(field), _resumed(field.name))
        rows.append("| " + " | ".join([*map(_cell, cells), _cell(_help(field))]) + " |")
    return SETTINGS + "\n".join(sorted(rows)) + "\n"


def commands() -> str:
    """A section for every command but `train`."""
    parts = [COMMANDS]
    for name, command in _leaves(get_command(app), "oprd"):
        if name == "oprd train":
            continue
        rows = "\n".join(_option(each) for each in command.params if each.name != "help")
        said = " ".join((command.help or "").split("\f")[0].split())
        parts.append(f"## {name}\n\n{said}\n\n| option | default | |\n|---|---|---|\n{rows}")
    return "\n\n".join(parts) + "\n"


def _leaves(command: Any, name: str) -> list[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        return [(name, command)]
    below = command.commands.items()
    return [leaf for called, each in below for leaf in _leaves(each, f"{name} {called}")]


def _option(option: Any) -> str:
    called = option.opts[0] if option.param_type_name == "option" else option.name.upper()
    default = None if callable(option.default) else option.default
    shown = "" if default in (None, (), []) else f"`{default}`"
    cells = (f"`{called}`", shown, getattr(option, "help", ""))
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _type(field: dataclasses.Field[Any]) -> str:
    kind = field.type
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _default(field: dataclasses.Field[Any]) -> str:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return "none" if default is None else f"`{json.dumps(default, default=str).strip(chr(34))}`"


def _resumed(name: str) -> str:
    if name in (*kept.KEPT_SETTINGS, *kept.OF_FACTS):
        return "kept"
    return "free" if kept.may_change(name) else "said"


def _help(field: dataclasses.Field[Any]) -> str:
    return " ".join(str(field.metadata.get("help", "")).replace("%%", "%").split())


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
