import os
import stat

import pytest

from oprd.runs import atomic
from oprd.runs.atomic import give_usual_mode, written_whole


def test_a_file_is_replaced_when_the_new_one_is_complete_and_not_before(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with written_whole(path) as file:
        file.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(RuntimeError), written_whole(path) as file:
        file.write_text("half")
        raise RuntimeError
    assert path.read_text() == "new"


def test_after_an_error_nothing_half_written_is_left(tmp_path):
    with pytest.raises(RuntimeError), written_whole(tmp_path / "file") as file:
        file.write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_a_file_has_the_mode_that_the_umask_gives(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with written_whole(tmp_path / "file") as file:
            file.touch(0o600)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


told_here = pytest.mark.skipif(not atomic.STATUS.exists(), reason="the system does not tell it")


@told_here
def test_to_ask_for_the_umask_does_not_change_it_for_other_threads(tmp_path, monkeypatch):
    def changed(_):
        raise AssertionError("the umask was changed")

    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", changed)
            give_usual_mode(file := written(tmp_path / "file"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


@pytest.mark.parametrize("told", ["Name: python\n", None])
def test_where_the_system_does_not_tell_the_umask_that_of_the_import_counts(
    tmp_path, monkeypatch, told
):
    status = tmp_path / "status"
    if told is not None:
        status.write_text(told)
    monkeypatch.setattr(atomic, "STATUS", status)
    monkeypatch.setattr(atomic, "_MASK_AT_IMPORT", 0o007)
    give_usual_mode(file := written(tmp_path / "file"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o660


@told_here
def test_the_umask_that_is_asked_for_at_the_import_stays():
    before = os.umask(0o026)
    try:
        assert atomic._asked_mask() == atomic._told_mask() == 0o026
    finally:
        os.umask(before)


def written(path):
    path.touch(0o600)
    return path
