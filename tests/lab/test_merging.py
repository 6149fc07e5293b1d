from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lab.items import merging
from tests import tiny


class Paths:
    """Specialists whose models are there."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths

    def paths(self) -> dict[str, Path]:
        return {str(number): path for number, path in enumerate(self._paths)}


@pytest.fixture
def averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Averages two models, and gives the folder whose figures are asked for."""
    monkeypatch.setattr(merging, "CACHE", tmp_path / "cache")
    asked: list[Path] = []

    def scored(model: Path, *_: object) -> dict:
        asked.append(model)
        return {"reported": {"problems": []}}

    monkeypatch.setattr(merging, "scores", scored)

    def average(*paths: Path) -> Path:
        merging._averaged(Paths(*paths), 2)
        return asked[-1]

    return average


def test_a_mean_is_of_these_models_at_these_steps(averaged, tmp_path):
    paths = [tmp_path / f"recipe-{n % 2}" / f"checkpoint-{n}" for n in range(3)]
    for seed, path in enumerate(paths):
        tiny.model(seed=seed).save_pretrained(path)
        tiny.tokenizer().save_pretrained(path)
    # The first and the last are two steps of one recipe.
    folders = {averaged(paths[0], paths[1]), averaged(paths[2], paths[1])}
    assert len(folders) == 2
    weights = [dict(tiny.model(seed=n).named_parameters()) for n in (2, 1)]
    mean = AutoModelForCausalLM.from_pretrained(averaged(paths[2], paths[1]))
    for name, found in mean.named_parameters():
        torch.testing.assert_close(found, (weights[0][name] + weights[1][name]) / 2)
