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
