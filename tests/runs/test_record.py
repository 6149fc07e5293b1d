import json
from pathlib import Path
from typing import Any

import pytest

from oprd.runs.record import ModelSource, models_of_run


def write(folder: Path, **record: Any) -> Path:
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_a_run_has_a_teacher_and_a_student_before_and_after(tmp_path: Path) -> None:
    run = write(tmp_path, student="s", teacher="adapter", teacher_base="base", settings={})
    assert models_of_run(run) == [
        ModelSource("teacher", "adapter", "base", None, "float32"),
        ModelSource("student before", "s", "s", None, "float32"),
        ModelSource("student after", str(tmp_path), "s", None, "float32"),
    ]


def test_models_are_loaded_as_the_run_loaded_them(tmp_path: Path) -> None:
    settings = {
        "model_init_kwargs": {"dtype": "bfloat16", "revision": "v1"},
        "teacher_model_init_kwargs": {"dtype": "torch.float16"},
        "teacher_model_revision": "v2",
    }
    run = write(tmp_path, student="s", teacher="t", teacher_base=None, settings=settings)
    teacher, before, after = models_of_run(run)
    assert (teacher.revision, teacher.dtype) == ("v2", "float16")
    assert (before.revision, before.dtype, after.dtype) == ("v1", "bfloat16", "bfloat16")


def test_a_model_that_was_built_in_memory_cannot_be_loaded_again(tmp_path: Path) -> None:
    run = write(tmp_path, student="", teacher="t")
    with pytest.raises(ValueError, match="its student came from, which was built in memory"):
        models_of_run(run)


def test_what_is_no_run_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no run folder: it holds no run\.json"):
        models_of_run(tmp_path)
    for text in ("{", "[]"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(ValueError, match=r"run\.json is damaged"):
            models_of_run(tmp_path)
