import json
from pathlib import Path
from typing import Any

import pytest

from oprd.runs.manifest import write_manifest
from oprd.runs.record import ModelSource, claim_folder, models_of_run, student_of_run


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


def test_a_teacher_is_asked_as_the_run_asked_it(tmp_path: Path) -> None:
    """One that has a tokenizer of its own is told nothing of what the student's template is."""
    settings = {
        "chat_template_kwargs": {"enable_thinking": False},
        "teacher_chat_template_kwargs": {"date": "today"},
    }
    for tokenizer, shared in (("student", {"enable_thinking": False}), ("own", {})):
        own = {**settings, "teacher_tokenizer": tokenizer}
        run = write(tmp_path, student="s", teacher="t", settings=own)
        teacher, *students = models_of_run(run)
        assert teacher.chat_template_kwargs == {**shared, "date": "today"}
        assert all(s.chat_template_kwargs == {"enable_thinking": False} for s in students)


def saved(folder: Path, weights: str, **others: str) -> Path:
    """A folder of a model, with its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"model.safetensors": weights, **others}.items():
        (folder / name).write_text(text)
    write_manifest(folder, {}, ["model.safetensors", *others])
    return folder


def test_a_run_has_another_student_when_its_weights_are_others(tmp_path: Path) -> None:
    first = student_of_run(saved(tmp_path, "first"))
    assert first and student_of_run(saved(tmp_path, "first", **{"README.md": "a card"})) == first
    assert student_of_run(saved(tmp_path, "other")) not in (first, None)
    assert student_of_run(saved(tmp_path, "first")) == first


def test_without_a_student_of_its_own_a_runs_is_that_of_its_newest_checkpoint(tmp_path: Path):
    assert student_of_run(tmp_path) is None
    found = [student_of_run(saved(tmp_path / f"checkpoint-{n}", str(n)).parent) for n in (1, 2)]
    assert None not in found and found[0] != found[1]
    assert student_of_run(saved(tmp_path, "1")) == found[0]


def test_a_new_run_takes_the_place_of_a_run_alone(tmp_path: Path) -> None:
    for there in ("empty", "new/run"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        claim_folder(tmp_path / there)
        # One that ended before it trained may be begun again.
        (tmp_path / there / "kept").write_text("mine")
        claim_folder(tmp_path / there)
    record = (write(tmp_path / "empty", student="s") / "run.json").read_text()
    claim_folder(tmp_path / "empty")
    assert (tmp_path / "empty" / "run.json").read_text() == record
    for other in (tmp_path, tmp_path / "new" / "run" / "kept"):
        with pytest.raises(ValueError, match="is there and no run"):
            claim_folder(other)
    assert not (tmp_path / "run.json").exists()


def test_of_an_earlier_run_what_is_asked_for_goes_and_the_rest_stays_until_training(tmp_path: Path):
    write(tmp_path, student="s")
    for name in ("samples/teacher.jsonl", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    claim_folder(tmp_path, cleared="samples/*.jsonl")
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"run.json", "notes.txt"}
