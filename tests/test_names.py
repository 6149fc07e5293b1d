import os
from pathlib import Path

import pytest

from oprd.names import locate
from oprd.runs.record import check_output_dir

BAD_NAMES = [
    ("", "must be a name or a path, got ''"),
    ("  ", "must be a name or a path"),
    ("a\0b", "holds a NUL character"),
    ("a" * 300, "has a part of 300 bytes; file systems take at most 255"),
    ("ä" * 150, "has a part of 300 bytes"),
    ("a/" * 2100, "is 4200 bytes long, at most 4096 are"),
]


@pytest.mark.parametrize(("name", "problem"), BAD_NAMES)
def test_a_name_that_no_file_system_takes_is_refused(name: str, problem: str):
    with pytest.raises(ValueError, match=f"^student .*{problem}"):
        locate(name, "student")
    with pytest.raises(ValueError, match=f"^output_dir .*{problem}"):
        check_output_dir(name)


@pytest.mark.parametrize("name", ["a b", "owner/na..me", "-x", "a--b", "a" * 97])
def test_a_name_that_is_neither_a_path_nor_a_hub_name_is_refused(name: str):
    with pytest.raises(ValueError, match="no file or folder here, and no possible name on the"):
        locate(name, "student")


def test_a_hub_name_has_no_path_and_a_folder_has_one(tmp_path: Path):
    assert locate("owner/name", "student") is None
    assert locate(str(tmp_path), "student") == tmp_path


def test_an_output_directory_is_made_and_left_empty(tmp_path: Path):
    path = check_output_dir(str(tmp_path / "new" / "run"))
    assert path.is_dir() and not list(path.iterdir())


def test_an_output_directory_below_a_file_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    for name in ("file", "file/run"):
        with pytest.raises(OSError, match=r"cannot be written to .*choose another with --out"):
            check_output_dir(str(tmp_path / name))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_output_directory_is_refused(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="Permission denied"):
        check_output_dir(str(tmp_path))
