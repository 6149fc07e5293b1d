from pathlib import Path

import pytest

from oprd.evaluation.grading import Grade
from oprd.evaluation.records import (
    RecordFile,
    final_grade,
    read_records,
    rewrite_records,
    sample_file,
)
from tests.evaluation.samples import header, record

HEADER = header()
RECORDS = [record(sample=i, text="é\u2028" * i) for i in range(3)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "deep" / "t.jsonl"
    with RecordFile(path, HEADER) as file:
        file.append(RECORDS[:1])
        file.append(RECORDS[1:])
    return path


def test_what_is_written_is_read(path: Path) -> None:
    assert read_records(path) == (HEADER, RECORDS)


def test_a_file_cut_anywhere_goes_on_from_its_complete_lines(path: Path) -> None:
    whole = path.read_bytes()
    # Every kind of place: within the header, within a record, at the ends of lines.
    ends = [i + d for i, c in enumerate(whole) if c == 10 for d in (0, 1, 2)]
    for length in sorted({0, 1, *range(50, len(whole), 97), *ends} - {len(whole) + 1}):
        path.write_bytes(whole[:length])
        with RecordFile(path, HEADER) as file:
            assert file.records == RECORDS[: max(0, whole[:length].count(b"\n") - 1)]
            file.append(RECORDS[len(file.records) :])
        assert path.read_bytes() == whole


def test_a_garbled_last_line_is_dropped(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0\0\0\n")
    with RecordFile(path, HEADER) as file:
        assert file.records == RECORDS


def test_a_broken_line_in_the_middle_is_an_error_that_names_it(path: Path) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2][:10]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match=r"t\.jsonl, line 3"):
        RecordFile(path, HEADER)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"status": "correct"', b'"status": "fine"', "status 'fine'"),
        (b'"gold"', b'"golden"', "gold"),
        (b'"format": 1', b'"format": 9', "format 9"),
        (b'"sample": 1', b'"sample": 0', "twice"),
    ],
)
def test_a_line_that_is_no_record_is_an_error(
    path: Path, old: bytes, new: bytes, message: str
) -> None:
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_records(path)


@pytest.mark.parametrize("key", ["model", "weights", "template_hash", "sampling", "source"])
def test_a_file_of_another_evaluation_is_refused_and_left_alone(path: Path, key: str) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"{key}=.*another output"):
        RecordFile(path, {**HEADER, key: "other"})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"my notes", b"my notes\n", b'{"a": 1}\n', b'{"a": 1}', b'{"format": 1, "mo\n']
)
def test_a_file_that_is_no_evaluation_is_refused_and_left_alone(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"notes\.jsonl exists and was not written by this run"):
        RecordFile(path, HEADER)
    assert path.read_bytes() == content


def test_a_cut_file_of_another_evaluation_is_left_alone(path: Path) -> None:
    cut = path.read_bytes()[:-20]
    path.write_bytes(cut)
    with pytest.raises(ValueError, match="model="):
        RecordFile(path, {**HEADER, "model": "other"})
    assert path.read_bytes() == cut


def test_samples_of_another_grader_alone_are_to_be_graded_again(path: Path) -> None:
    with pytest.raises(ValueError, match=r"grader='g'.* with --regrade"):
        RecordFile(path, {**HEADER, "grader": "other"})


@pytest.mark.parametrize("more", [{}, {"grader": "other"}, {"problems_hash": "y"}])
def test_samples_of_another_source_and_grader_may_be_graded_again(
    path: Path, more: dict[str, str]
) -> None:
    rewrite_records(path, {**HEADER, "problems_hash": "x"}, RECORDS)
    new = {**HEADER, "problems_hash": "x", "source": "other", **more}
    with pytest.raises(ValueError, match=r"another output.* gold answers were mended.*--regrade"):
        RecordFile(path, new)
    with pytest.raises(ValueError, match=r"another output or delete the file\.$"):
        RecordFile(path, {**new, "weights": "other"})


def test_problems_are_compared_where_the_file_names_them(path: Path) -> None:
    new = {**HEADER, "problems_hash": "x"}
    with RecordFile(path, new) as file:
        assert file.records == RECORDS
    rewrite_records(path, {**HEADER, "problems_hash": "y"}, RECORDS)
    with pytest.raises(ValueError, match="problems_hash='y'"):
        RecordFile(path, new)


def test_other_versions_may_go_on(path: Path) -> None:
    with RecordFile(path, {**HEADER, "versions": {"torch": "9"}}) as file:
        assert file.records == RECORDS


def test_two_writers_are_refused(path: Path) -> None:
    with RecordFile(path, HEADER), pytest.raises(OSError, match="another process"):
        RecordFile(path, HEADER)
    with RecordFile(path, HEADER):
        pass


def test_an_empty_file_holds_no_evaluation(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").touch()
    with pytest.raises(ValueError, match="header line is missing"):
        read_records(tmp_path / "e.jsonl")


def test_rewriting_replaces_the_file_whole(path: Path) -> None:
    rewrite_records(path, HEADER, RECORDS[:1])
    assert read_records(path) == (HEADER, RECORDS[:1])
    assert [p.name for p in path.parent.iterdir()] == ["t.jsonl"]


def test_truncated_explains_a_failure_and_spares_a_success() -> None:
    assert final_grade(Grade(False, "unterminated"), "length").status == "truncated"
    assert final_grade(Grade(True, "correct", "5"), "length").status == "correct"
    assert final_grade(Grade(False, "wrong", "5"), "stop").status == "wrong"


def test_names_stay_inside_the_output_folder(tmp_path: Path) -> None:
    names = ["../x", "/etc/passwd", "a/../b", "..", "\0", "", "n" * 300, "a b", "a_b"]
    files = [sample_file(tmp_path, name, name) for name in names]
    assert len(set(files)) == len(names)
    for file in files:
        assert file.resolve().is_relative_to(tmp_path.resolve())
        assert len(file.relative_to(tmp_path).parts) == 2
        assert max(map(len, file.parts)) < 255
