import os
import stat

import pytest

from oprd.runs.atomic import written_whole


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
