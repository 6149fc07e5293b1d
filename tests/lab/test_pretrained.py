from pathlib import Path
from typing import Any

import pytest

from lab import pretrained
from lab.pretrained import Pretrained

ADAPTER = "adapter_model.safetensors"


class Saved:
    """Stands in for a model, merged or not, and for a tokenizer."""

    def merge_and_unload(self) -> "Saved":
        return self

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "teacher").mkdir()
    monkeypatch.setattr(pretrained, "DEMO", tmp_path)
    monkeypatch.setattr(pretrained, "CACHE", tmp_path / "cache")
    base = {"base_model_folder": lambda cache: tmp_path / "base"}
    monkeypatch.setattr(pretrained.runpy, "run_path", lambda _: base)
    monkeypatch.setattr(pretrained, "load_model", lambda *_, **__: (Saved(), Saved()))
    return tmp_path


def test_another_adapter_makes_another_teacher_with_figures_of_its_own(places, monkeypatch):
    files: list[Path] = []

    def scored(model: Path, task: str, file: Path, counts: dict[str, int]) -> dict[str, Any]:
        files.append(file)
        return {}

    monkeypatch.setattr(pretrained, "scores", scored)
    folders = []
    for content in (b"one", b"two", b"one"):
        (places / "teacher" / ADAPTER).write_bytes(content)
        folders.append(Pretrained("teacher").path())
        for role in ("teacher", "student"):
            Pretrained(role).scores(2)
    first, second, again = folders
    assert first == again != second and (second / "finished").exists()
    assert files[0] == files[4] != files[2]
    assert files[1] == files[3] == files[5]
