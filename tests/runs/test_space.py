import errno
import resource

import pytest

from oprd.runs import space
from oprd.runs.space import Need, disk_problem, free_bytes, largest_file, shortage


def test_two_saves_need_the_room_of_both_and_one_largest_file():
    assert Need(5, 3) + Need(4, 4) == Need(9, 4)


def test_room_is_looked_for_where_a_folder_will_be_made(tmp_path):
    free = free_bytes(tmp_path / "a" / "b")
    assert free == pytest.approx(free_bytes(tmp_path), rel=0.1)
    assert not (tmp_path / "a").exists()


def test_what_does_not_fit_is_named_with_path_needed_and_free_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(space, "free_bytes", lambda folder: 1000)
    assert shortage(tmp_path, Need(1000, 1000)) is None
    said = f"{tmp_path} needs about 1,001 bytes, and 1,000 are free"
    assert shortage(tmp_path, Need(1001, 1)) == said


def test_a_limit_on_files_is_named(tmp_path):
    assert largest_file() is None
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        problem = shortage(tmp_path, Need(2000, 1001))
        assert shortage(tmp_path, Need(2000, 1000)) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = f"{tmp_path} needs a file of about 1,001 bytes, and files may have 1,000"
    assert problem == said


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (RuntimeError("[enforce fail at inline_container.cc:659]"), "[enforce fail"),
        (FileNotFoundError(errno.ENOENT, "No such file"), None),
        (OSError("no number"), None),
        (RuntimeError("shapes differ"), None),
    ],
)
def test_what_a_disk_answers_is_told_from_other_errors(error, problem):
    found = disk_problem(error)
    assert found is None if problem is None else found.startswith(problem)
