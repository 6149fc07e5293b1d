from pathlib import Path
from typing import Any

import pytest

from oprd.runs.beginning import Beginning, Wanted, find_beginning
from tests.runs.saved import checkpoint

SETTINGS: dict[str, Any] = {"positions": "all", "seed": 1}
TEACHER = {"teacher": {"source": "t", "weights": "a1"}}


def saved(run: Path, step: int = 2) -> Path:
    facts = {"identity": TEACHER, "mean_squares": {"": {"1": 0.5}}}
    return checkpoint(run, step, settings=SETTINGS, facts=facts)


def wanted(run: Path, word: Any, **options: Any) -> Wanted:
    return Wanted(run, word, **{"settings": SETTINGS, **options})


def test_an_empty_folder_is_begun_in_anew(tmp_path: Path):
    for word in (None, False, "false", "auto", True):
        assert find_beginning(wanted(tmp_path / "run", word)) == Beginning()


def test_what_the_run_knew_of_itself_comes_with_its_checkpoint(tmp_path: Path):
    path = saved(tmp_path)
    begun = find_beginning(wanted(tmp_path, "auto", max_steps=2), TEACHER)
    assert (begun.checkpoint, begun.step, list(begun.changes)) == (str(path), 2, [])
    assert begun.facts["mean_squares"] == {"": {"1": 0.5}}
    assert begun.record() == {"resumed_from": str(path), "changed": []}


def test_before_models_are_loaded_the_settings_are_compared_alone(tmp_path: Path):
    saved(tmp_path)
    other = {"teacher": {"source": "t", "weights": "b2"}}
    find_beginning(wanted(tmp_path, "auto"))
    with pytest.raises(ValueError, match="teacher"):
        find_beginning(wanted(tmp_path, "auto"), other)
    with pytest.raises(ValueError, match="positions"):
        find_beginning(wanted(tmp_path, "auto", settings={"positions": "last"}))


def test_what_changed_is_recorded_with_the_step_and_what_changed_before(tmp_path: Path):
    facts = {"changed": [{"step": 1, "name": "seed", "before": 0, "now": 1}]}
    checkpoint(tmp_path, 2, settings=SETTINGS, facts=facts)
    begun = find_beginning(wanted(tmp_path, "auto", settings={**SETTINGS, "seed": 3}))
    now = {"step": 2, "name": "seed", "before": 1, "now": 3}
    assert begun.record()["changed"] == [*facts["changed"], now]


def test_a_last_step_before_the_checkpoint_is_refused(tmp_path: Path):
    saved(tmp_path, 4)
    for steps in (-1, 4, 5):
        find_beginning(wanted(tmp_path, "auto", max_steps=steps))
    with pytest.raises(ValueError, match="is of step 4, beyond max_steps=3"):
        find_beginning(wanted(tmp_path, "auto", max_steps=3))


def test_a_folder_with_checkpoints_is_begun_in_only_to_go_on_or_to_overwrite(tmp_path: Path):
    here, elsewhere = saved(tmp_path / "here"), saved(tmp_path / "elsewhere")
    for word in (None, str(elsewhere)):
        with pytest.raises(ValueError, match="would start anew among them"):
            find_beginning(wanted(here.parent, word))
        find_beginning(wanted(here.parent, word, overwrite=True))
    for word in ("auto", True, str(here)):
        with pytest.raises(ValueError, match="give one of them"):
            find_beginning(wanted(here.parent, word, overwrite=True))
