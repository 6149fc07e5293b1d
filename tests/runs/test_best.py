import json
from pathlib import Path

import pytest

from oprd.runs.best import OLD, PARTIAL, best_so_far, put_back_best, replace_best
from oprd.runs.manifest import write_manifest
from oprd.runs.record import BEST, BEST_RECORD, read_best

FIGURE = "sums/avg@4"


def student(folder: Path, step: int, *, whole: bool = True) -> None:
    folder.mkdir()
    record = {"figure": FIGURE, "value": step / 10, "step": step}
    (folder / BEST_RECORD).write_text(json.dumps(record))
    if whole:
        write_manifest(folder, {})


def step_of_best(run: Path) -> int | None:
    found = read_best(run)
    return found["step"] if found else None


def test_a_new_best_student_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    for step in (1, 2):
        student(tmp_path / PARTIAL, step)
        replace_best(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [BEST]
        assert step_of_best(tmp_path) == step


@pytest.mark.parametrize(
    ("old", "new", "whole", "goes_on_at", "kept"),
    [
        (1, 2, True, 2, 2),
        # The run goes back behind the new one.
        (1, 2, True, 1, 1),
        (2, 3, True, 1, 3),
        # It was not saved to its end.
        (1, 2, False, 2, 1),
        (None, 2, False, 2, None),
        (None, None, True, 2, None),
    ],
)
def test_a_best_student_that_a_kill_left_without_its_name_has_it_back(
    tmp_path: Path, old: int | None, new: int | None, whole: bool, goes_on_at: int, kept: int | None
) -> None:
    if old is not None:
        student(tmp_path / OLD, old)
    if new is not None:
        student(tmp_path / PARTIAL, new, whole=whole)
    put_back_best(tmp_path, goes_on_at)
    assert step_of_best(tmp_path) == kept


def test_one_that_has_its_name_keeps_it(tmp_path: Path) -> None:
    student(tmp_path / BEST, 1)
    student(tmp_path / PARTIAL, 2)
    put_back_best(tmp_path, 2)
    assert step_of_best(tmp_path) == 1


@pytest.mark.parametrize(
    ("best", "figure", "step", "reached"),
    [
        (3, FIGURE, 5, (0.3, 2)),
        (3, FIGURE, 3, (0.3, 0)),
        # Of a later step than the run goes on from, so that what its log has up to there counts.
        (3, FIGURE, 2, (0.2, 0)),
        (3, "sums/best@4", 5, (float("-inf"), 0)),
        (None, FIGURE, 5, (float("-inf"), 0)),
        (3, FIGURE, 0, (float("-inf"), 0)),
    ],
)
def test_what_was_reached_up_to_a_step(
    tmp_path: Path, best: int | None, figure: str, step: int, reached: tuple[float, int]
) -> None:
    if best is not None:
        student(tmp_path / BEST, best)
    logged = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.25, 5: 0.3}
    lines = [{"step": at, f"eval/{FIGURE}": value} for at, value in logged.items()]
    lines.append({"step": 5, "loss": 1.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert best_so_far(tmp_path, figure, step) == reached
