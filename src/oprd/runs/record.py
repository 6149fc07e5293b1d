"""A run's folder: its record, `run.json`, its best student, and the models it speaks of."""

import json
import os
import platform
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from oprd.names import check_name
from oprd.runs.atomic import written_whole
from oprd.runs.checkpoints import newest_checkpoint
from oprd.runs.manifest import STUDENT, content_hash, problem, read_manifest
from oprd.secrets import without_secrets
from oprd.text import kind, parse_json
from oprd.version import __version__

RECORD = "run.json"
# What a record calls the range test that found a run's learning rate.
RATE_TEST = "learning_rate_test"
# What `oprd train` was asked that is no default, by which it can be asked again.
ASKED = "asked"
# The settings of a trainer in Python that are no defaults.
GIVEN = "given"
# What an evaluation's header says of the weights that were evaluated; see `saved_as`.
SAVED = "saved"
# The best student, and what makes it that.
BEST, BEST_RECORD = "best", "best.json"
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


def claim_folder(folder: Path, cleared: str = "") -> None:
    """Take a folder for a run that begins anew, and is one from here on, however early it ends.

    Args:
        folder: of an earlier run, empty, or not there.
        cleared: files in it that go, by a pattern: what stands beside a run in no record of it.

    Raises:
        ValueError: something stands there that is no run.
    """
    if (folder / RECORD).is_file():
        for file in folder.glob(cleared) if cleared else ():
            file.unlink()
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{str(folder)!r} is there and no run, which would hold a {RECORD}: name a folder that "
            "is empty or not there yet."
        )
    write_record(folder, {}, {})


def write_record(folder: Path, facts: dict[str, Any], settings: dict[str, Any]) -> None:
    """Write what a run is: facts about it, versions, and its settings without secrets.

    Args:
        folder: of the run; made where it is not there.
        facts: what the settings do not say.
        settings: of the run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, {**facts, "versions": versions(), "settings": settings})


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


def read_record(folder: Path) -> dict[str, Any] | None:
    """What `write_record` wrote, None where there is nothing.

    Raises:
        ValueError: it cannot be read.
    """
    return _read_record(folder / RECORD) if (folder / RECORD).is_file() else None


def read_best(run: Path) -> dict[str, Any] | None:
    """`figure`, `value` and `step` of the best student that a run kept, None where it kept none."""
    return read_best_record(run / BEST)


def read_best_record(best: Path) -> dict[str, Any] | None:
    """The same of the folder in which the best student stands, wherever that is.

    Raises:
        ValueError: it is damaged.
    """
    if not (best / BEST_RECORD).is_file():
        return None
    record = _read_object(best / BEST_RECORD)
    needed = {"figure": str, "value": int | float, "step": int}
    if any(not isinstance(record.get(name), wanted) for name, wanted in needed.items()):
        raise ValueError(f"{best / BEST_RECORD} is damaged: it needs {', '.join(needed)}.")
    return record


def saved_as(folder: Path) -> str | None:
    """A hash of a folder's weights as they were saved, None where no manifest names them.

    Unlike a fingerprint of tensors it is read without a model library.
    """
    with suppress(ValueError, OSError):
        files = (read_manifest(folder) or {"files": {}})["files"]
        weights = {name: files[name]["sha256"] for name in files if STUDENT.fullmatch(name)}
        return content_hash(weights)[:16] if weights else None


def student_of_run(folder: Path) -> str | None:
    """The same of a run's student as it is now: its own, else that of its newest checkpoint."""
    with suppress(OSError):
        if problem(folder, contents=False) is None and (own := saved_as(folder)):
            return own
        newest = newest_checkpoint(folder, fits=_names_student, contents=False, say=False)
        return None if newest is None else saved_as(newest)


def _names_student(checkpoint: Path) -> bool:
    return saved_as(checkpoint) is not None


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
    settings = _part(folder, record, "settings")
    student = _part(folder, settings, "model_init_kwargs")
    teacher = teacher_of_run(folder)
    if not (before := _text_of(folder, record, "student")):
        raise _in_memory(folder, "student")
    of_student = (before, _text_of(folder, student, "revision"), _dtype(student))
    options = _part(folder, settings, "chat_template_kwargs")
    return [
        teacher,
        ModelSource("student before", before, *of_student, options),
        ModelSource("student after", str(folder), *of_student, options),
    ]


def teacher_of_run(folder: Path) -> ModelSource:
    """Where the teacher of a run stands; see `models_of_run`."""
    record = _read_record(folder / RECORD)
    settings = _part(folder, record, "settings")
    options = _part(folder, settings, "teacher_model_init_kwargs")
    if several := _part(folder, record, "teachers"):
        raise ValueError(
            f"{folder} has the teachers {', '.join(several)}: name the models one by one with "
            "--model."
        )
    if settings.get("teacher_source", "path") != "path":
        raise ValueError(
            f"the teacher of {folder} is {record.get('teacher')}, which has no place of its own: "
            "name the models one by one with --model."
        )
    if not (teacher := _text_of(folder, record, "teacher")):
        raise _in_memory(folder, "teacher")
    revision = _text_of(folder, settings, "teacher_model_revision")
    return ModelSource(
        "teacher",
        teacher,
        _text_of(folder, record, "teacher_base"),
        revision or _text_of(folder, options, "revision"),
        _dtype(options),
        _teacher_template(folder, settings),
    )


def _teacher_template(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What its chat template is given; one of another tokenizer nothing of the student's."""
    own = settings.get("teacher_tokenizer") == "own"
    shared = {} if own else _part(folder, settings, "chat_template_kwargs")
    return {**shared, **_part(folder, settings, "teacher_chat_template_kwargs")}


def _part(folder: Path, values: dict[str, Any], name: str) -> dict[str, Any]:
    """A mapping within a record, empty where there is none."""
    if not isinstance(found := values.get(name) or {}, dict):
        raise ValueError(f"{folder / RECORD} is damaged: {name} is {kind(found)}, no mapping.")
    return found


def _text_of(folder: Path, values: dict[str, Any], name: str) -> str | None:
    """Likewise a text."""
    if (found := values.get(name)) is not None and not isinstance(found, str):
        raise ValueError(f"{folder / RECORD} is damaged: {name} is {kind(found)}, not text.")
    return found


def _in_memory(folder: Path, key: str) -> ValueError:
    return ValueError(
        f"{folder} does not say where its {key} came from, which was built in memory: "
        "name the models one by one with --model."
    )


def _write(folder: Path, record: dict[str, Any]) -> None:
    with written_whole(folder / RECORD) as file:
        file.write_text(_text(record))


def _text(record: dict[str, Any]) -> str:
    # As text first: what is no text yet may hold secrets too.
    plain = json.loads(json.dumps(record, default=str))
    return json.dumps(without_secrets(plain), indent=2) + "\n"


def _read_record(path: Path) -> dict[str, Any]:
    try:
        return _read_object(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{str(path.parent)!r} is no run folder: it holds no run.json."
        ) from error


def _read_object(path: Path) -> dict[str, Any]:
    try:
        record = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object.")
    return record


def _dtype(init_kwargs: dict[str, Any]) -> str:
    """TRL loads in float32 unless it is told otherwise."""
    return str(init_kwargs.get("dtype") or "float32").removeprefix("torch.")
