"""How a run is run again: the file that `oprd train` takes, or a script, from its record."""

import json
from collections.abc import Mapping
from typing import Any

import yaml

from oprd.runs.card import shown_name, shown_settings
from oprd.runs.folder import RunFolder
from oprd.runs.record import ASKED, GIVEN
from oprd.secrets import HIDDEN
from oprd.text import escaped

NO_ADAPTER = "none"
# Of an adapter's configuration.
TOLD = ("peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save")


def again(run: RunFolder) -> tuple[str, str] | None:
    """A sentence, and a file or a script; None where nothing is known."""
    asked = run.record.get(ASKED)
    if isinstance(asked, Mapping) and asked:
        lines = [f"{yaml_text(str(name))}: {yaml_text(value)}" for name, value in asked.items()]
        return "Save as train.yaml, then: oprd train --config train.yaml", "\n".join(lines)
    given = _given(run)
    return (_sentence(run.record, given), _script(run.record, given)) if given else None


def _given(run: RunFolder) -> Mapping[str, Any]:
    """The settings of a script: what was given, or of an older record what a card tells."""
    given, settings = run.record.get(GIVEN), run.settings
    if isinstance(given, Mapping):
        return {str(name): value for name, value in given.items()}
    # A rate that was found has no value here.
    names = ["max_steps", *(name for name, _ in shown_settings(settings))]
    told = {name: settings[name] for name in names if settings.get(name) is not None}
    return {"output_dir": f"runs/{run.name}", **told} if told else {}


def yaml_text(value: Any) -> str:
    """A value of JSON as YAML in one line, with text between quotes."""
    if isinstance(value, Mapping):
        parts = (f"{yaml_text(str(name))}: {yaml_text(part)}" for name, part in value.items())
        return f"{{{', '.join(parts)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(yaml_text, value))}]"
    if isinstance(value, float):
        # To YAML 1e-05 is text, and inf is.
        return yaml.safe_dump(value).splitlines()[0]
    if isinstance(value, str) and value.isidentifier() and yaml.safe_load(value) == value:
        return value
    # Between quotes YAML knows the escapes of what does not print.
    return escaped(json.dumps(value, ensure_ascii=False))


def _sentence(record: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """What the script asks its reader for."""
    count, source = record.get("prompts"), record.get("dataset")
    number = f"the {count:,} prompts" if isinstance(count, int) else "the stream of prompts"
    missing = [number + (f" from {shown_name(str(source))}" if source else "") + " of the run"]
    missing += [f"the {role}, built in memory" for role in _built(record)]
    adapter = _adapter(record)
    if adapter:
        missing.append(f"peft_config, a new adapter ({adapter})")
    missing += [f"{name}, a secret" for name, value in given.items() if value == HIDDEN]
    return (
        f"In Python. What the run's record does not hold, you give: {'; '.join(missing)}; and "
        "tools, callbacks, tokenizers and optimizers where the trainer was given its own."
    )


def _script(record: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    models = [
        f"    {argument}={role if role in _built(record) else repr(str(record.get(role)))},"
        for role, argument in (("student", "model"), ("teacher", "teacher_model"))
    ]
    settings = [f"        {name}={value!r}," for name, value in given.items() if value != HIDDEN]
    return "\n".join(
        [
            "from oprd import OPRDConfig, OPRDTrainer",
            "",
            "trainer = OPRDTrainer(",
            *models,
            "    args=OPRDConfig(",
            *settings,
            "    ),",
            "    train_dataset=prompts,",
            *(["    peft_config=peft_config,"] if _adapter(record) else []),
            ")",
            "trainer.train()",
        ]
    )


def _built(record: Mapping[str, Any]) -> list[str]:
    """Roles whose model was built in memory."""
    return [role for role in ("student", "teacher") if not record.get(role)]


def _adapter(record: Mapping[str, Any]) -> str:
    """A new adapter's configuration in a line, empty where none was trained."""
    identity = record.get("identity")
    found = identity.get("adapter") if isinstance(identity, Mapping) else None
    if not isinstance(found, Mapping) or found.get("peft_type") in (None, NO_ADAPTER):
        return ""
    return ", ".join(f"{name} {json.dumps(found[name])}" for name in TOLD if name in found)
