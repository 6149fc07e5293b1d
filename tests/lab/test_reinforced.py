"""Teachers that GRPO made of a student."""

from dataclasses import replace

import pytest
from safetensors.torch import load_file

from lab import models, reinforced
from lab.models import Recipe
from lab.moments import Moment
from lab.reinforced import Reinforced

STUDENT = Moment(Recipe("sums", layers=1, width=16, steps=1, batch=4, keep_every=1), 1)
TEACHER = Reinforced(STUDENT, steps=2, prompts=2, completions=4, keep_every=1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    for module in (models, reinforced):
        monkeypatch.setattr(module, "CACHE", tmp_path)
    monkeypatch.setattr(models, "EXAMPLES", 16)


def test_it_goes_on_from_the_student_and_leaves_what_it_was_rewarded(monkeypatch):
    # A model of two steps solves nothing: every second answer is called right.
    verdicts = iter([1.0, 0.0] * 100)
    monkeypatch.setattr(reinforced, "verdict", lambda *_: next(verdicts))
    before, after = STUDENT.path(), TEACHER.path()
    first, second = (load_file(folder / "model.safetensors") for folder in (before, after))
    assert first.keys() == second.keys()
    assert any(not first[name].equal(second[name]) for name in first)
    assert TEACHER.rewards() == {"step": [1, 2], "reward": [0.5, 0.5]}


def test_an_earlier_step_is_of_the_same_training():
    earlier = replace(TEACHER, at=1)
    assert earlier.folder == TEACHER.folder and earlier.key != TEACHER.key
    assert earlier.made_by == TEACHER.made_by
    with pytest.raises(ValueError, match="at=3 must be multiples of 2"):
        replace(TEACHER, at=3, keep_every=2)
    with pytest.raises(ValueError, match="at=4 is beyond the last of 2 steps"):
        replace(TEACHER, at=4)
