"""The three models of a training run: its teacher, its student before and its student after."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ModelSource:
    """A model to be evaluated.

    Attributes:
        name: what the output calls it.
        source: path or hub id of a model or of an adapter, or a run folder.
        base_model: what an adapter is loaded on, where it is not what it names itself.
        revision: of a hub id; for an adapter in a folder, of its base.
        dtype: `"auto"` is the checkpoint's own.
    """

    name: str
    source: str
    base_model: str | None = None
    revision: str | None = None
    dtype: str = "auto"


def models_of_run(folder: Path) -> list[ModelSource]:
    """Where the models of a run stand, in the precision in which the run loaded them.

    Raises:
        FileNotFoundError: there is no `run.json`.
        ValueError: it cannot be read, or a model was built in memory and stands nowhere.
    """
    record = _read_record(folder / "run.json")
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
    return [
        ModelSource("teacher", adapter_or_model, *of_teacher),
        ModelSource("student before", before, *of_student),
        ModelSource("student after", str(folder), *of_student),
    ]


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
