"""A run's folder: its record, `run.json`, its best student, and the models it speaks of."""

import json
import os
import platform
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from oprd.names import check_name
from oprd.runs.atomic import written_whole
from oprd.version import __version__

RECORD = "run.json"
# What a record calls the range test that found a run's learning rate.
RATE_TEST = "learning_rate_test"
# What `oprd train` was asked that is no default, by which it can be asked again.
ASKED = "asked"
# In the place of a secret.
HIDDEN = "<hidden>"
# The best student, and what makes it that.
BEST, BEST_RECORD = "best", "best.json"
# Names under which libraries take secrets.
SECRETS = ("token", "hub_token", "push_to_hub_token", "use_auth_token", "api_key", "password")
# What a run that goes on must share with its beginning: of the facts, and of the settings, by which
# the loss is another one. Which layers it compares is among the facts.
SAME_FACTS = ("teacher", "layer_pairs", "bridge_hashes")
SAME_SETTINGS = (
    "positions",
    "position_k",
    "updates_per_rollout",
    "state_loss",
    "state_loss_kwargs",
    "representation_weight",
    "scale",
    "output_loss",
    "output_loss_kwargs",
    "output_weight",
    "reduction",
    "prefix_gradients",
    "stages",
)
PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "safetensors", "peft", "vllm")


def check_output_dir(name: str) -> Path:
    """Create the output directory and prove that it can be written to.

    Raises:
        ValueError: the name is not usable as a path.
        OSError: the directory cannot be created or written to.
    """
    check_name(name, "output_dir")
    path = Path(os.path.expanduser(name))
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(b"oprd")
    except OSError as error:
        raise OSError(
            f"output_dir {name!r} cannot be written to ({error.strerror}): "
            "choose another with --output_dir."
        ) from error
    return path


def write_record(folder: Path, facts: dict[str, Any], settings: dict[str, Any], step: int) -> None:
    """Write what a run is: facts about it, versions, and its settings without secrets.

    Args:
        folder: of the run; made where it is not there.
        facts: what the settings do not say.
        settings: of the run.
        step: from which it goes on; 0 begins anew.

    Raises:
        ValueError: it is to go on towards something else than it began with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = {**facts, "versions": versions(), "settings": without_secrets(settings)}
    if step > 0:
        _check_same_run(folder / RECORD, record)
    _write(folder, record)


def add_to_record(folder: Path, facts: dict[str, Any]) -> None:
    """Add facts that were not known when the record was written; nothing where there is none."""
    if record := read_record(folder):
        _write(folder, {**record, **facts})


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what it is built on, where installed."""
    found = {"python": platform.python_version(), "oprd": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def without_secrets(settings: Any) -> Any:
    """Settings with the values of tokens and keys masked, at any depth."""
    if isinstance(settings, dict):
        return {
            name: HIDDEN if name in SECRETS and value else without_secrets(value)
            for name, value in settings.items()
        }
    if isinstance(settings, list | tuple):
        return [without_secrets(value) for value in settings]
    return settings


def read_record(folder: Path) -> dict[str, Any] | None:
    """What `write_record` wrote, None where there is nothing.

    Raises:
        ValueError: it cannot be read.
    """
    return _read_record(folder / RECORD) if (folder / RECORD).is_file() else None


def read_best(run: Path) -> dict[str, Any] | None:
    """`figure`, `value` and `step` of the best student that a run kept, None where it kept none."""
    record = run / BEST / BEST_RECORD
    return json.loads(record.read_text()) if record.is_file() else None


@dataclass(frozen=True)
class ModelSource:
    """A model to be evaluated.

    Attributes:
        name: what the output calls it.
        source: path or hub id of a model or of an adapter, or a run folder.
        base_model: what an adapter is loaded on, where it is not what it names itself.
        revision: of a hub id; for an adapter in a folder, of its base.
        dtype: `"auto"` is the checkpoint's own.
        chat_template_kwargs: what its chat template is given.
    """

    name: str
    source: str
    base_model: str | None = None
    revision: str | None = None
    dtype: str = "auto"
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)


def models_of_run(folder: Path) -> list[ModelSource]:
    """Where the models of a run stand, to be loaded and asked as the run did it.

    Raises:
        FileNotFoundError: there is no `run.json`.
        ValueError: it cannot be read, or a model was built in memory and stands nowhere.
    """
    record = _read_record(folder / RECORD)
    settings = record.get("settings") or {}
    student = settings.get("model_init_kwargs") or {}
    teacher = settings.get("teacher_model_init_kwargs") or {}
    for key in ("teacher", "student"):
        if not record.get(key):
            raise ValueError(
                f"{folder} does not say where its {key} came from, which was built in memory: "
                "name the models one by one with --model."
            )
    adapter_or_model, before = record["teacher"], record["student"]
    teacher_revision = settings.get("teacher_model_revision") or teacher.get("revision")
    of_teacher = (record.get("teacher_base"), teacher_revision, _dtype(teacher))
    of_student = (before, student.get("revision"), _dtype(student))
    options = settings.get("chat_template_kwargs") or {}
    return [
        ModelSource("teacher", adapter_or_model, *of_teacher, options),
        ModelSource("student before", before, *of_student, options),
        ModelSource("student after", str(folder), *of_student, options),
    ]


def _check_same_run(file: Path, record: dict[str, Any]) -> None:
    """Refuse, with a ValueError, to go on towards something else than a run began with."""
    if not file.is_file():
        return
    begun, record = _read_record(file), json.loads(_text(record))
    parts = [(begun, record, name) for name in SAME_FACTS]
    settings = begun.get("settings", {}), record["settings"]
    parts += [(*settings, name) for name in SAME_SETTINGS]
    for before, now, name in parts:
        # An earlier version may lack a name, and a mapping that is empty is none.
        if name in before and (before[name] or None) != (now.get(name) or None):
            raise ValueError(
                f"the run in {str(file.parent)!r} began with {name}={before[name]!r}, and is to go "
                f"on with {now.get(name)!r}: choose another output_dir, or the same {name}."
            )


def _write(folder: Path, record: dict[str, Any]) -> None:
    with written_whole(folder / RECORD) as file:
        file.write_text(_text(record))


def _text(record: dict[str, Any]) -> str:
    return json.dumps(record, indent=2, default=str) + "\n"


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{str(path.parent)!r} is no run folder: it holds no run.json."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object.")
    return record


def _dtype(init_kwargs: dict[str, Any]) -> str:
    """TRL loads in float32 unless it is told otherwise."""
    return str(init_kwargs.get("dtype") or "float32").removeprefix("torch.")
