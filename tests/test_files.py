"""One table of files, read by training and by evaluation: what one takes, the other takes."""

import gzip
import json
from pathlib import Path

import pytest

from oprd.evaluation.tasks.load import load_task
from oprd.prompts.load import load_prompts

ROWS = [{"problem": "one?", "answer": "1"}, {"problem": "zwei – 二?", "answer": "2"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
ARRAY = json.dumps(ROWS, ensure_ascii=False, indent=1)
CSV = "problem,answer\none?,1\nzwei – 二?,2\n"
SPLIT = '{"problem": "a\u2028b\x85c?", "answer": "1"}\n' + LINES.splitlines()[1]

GOOD = {
    "x.jsonl": LINES.encode(),
    "x.json": ARRAY.encode(),
    "lines.json": LINES.encode(),
    "x.csv": CSV.encode(),
    "X.JSONL": LINES.encode(),
    "X.Json": ARRAY.encode(),
    "X.CSV": CSV.encode(),
    "mark.jsonl": LINES.encode("utf-8-sig"),
    "mark.json": ARRAY.encode("utf-8-sig"),
    "mark-lines.json": LINES.encode("utf-8-sig"),
    "mark.csv": CSV.encode("utf-8-sig"),
    "wide.jsonl": LINES.encode("utf-16"),
    "wide.json": ARRAY.encode("utf-16"),
    "wide.csv": CSV.encode("utf-16"),
    "unmarked.jsonl": LINES.encode("utf-16-le"),
    "wider.json": ARRAY.encode("utf-32"),
    "windows.jsonl": LINES.replace("\n", "\r\n").encode(),
    "windows.json": ARRAY.replace("\n", "\r\n").encode(),
    "windows.csv": CSV.replace("\n", "\r\n").encode(),
    "x.jsonl.gz": gzip.compress(LINES.encode()),
    "X.JSONL.GZ": gzip.compress(LINES.encode("utf-8-sig")),
    "x.json.gz": gzip.compress(ARRAY.encode("utf-16")),
    "x.csv.gz": gzip.compress(CSV.encode("utf-8-sig")),
    "breaks.jsonl": SPLIT.encode(),
}
BAD_ROWS = {
    "escaped.jsonl": rb'{"problem": "\ud83d", "answer": "2"}',
    "answer.jsonl": rb'{"problem": "two?", "answer": "\udc00"}',
    "bytes.jsonl": b'{"problem": "caf\xe9?", "answer": "2"}',
    "cut.jsonl": b'{"problem": "two?", "answer',
    "list.jsonl": b'["two?", "2"]',
    "null.jsonl": b'{"problem": null, "answer": "2"}',
}
BAD = {
    **{name: LINES.splitlines()[0].encode() + b"\n" + row for name, row in BAD_ROWS.items()},
    "escaped.json": rb'[{"problem": "one?", "answer": "1"}, {"problem": "\ud83d", "answer": "2"}]',
    "bytes.csv": b"problem,answer\none?,1\ncaf\xe9?,2\n",
    "mark.jsonl": LINES.splitlines()[0].encode("utf-8-sig") + b"\n" + BAD_ROWS["escaped.jsonl"],
}
UNREADABLE = {
    "x.json": b'[{"problem": "one?"}',
    "x.jsonl.gz": gzip.compress(LINES.encode())[:-9],
    "text.jsonl.gz": LINES.encode(),
    "odd.jsonl": LINES.encode("utf-16") + b"\xd8",
    "x.parquet": LINES.encode(),
    "x.txt": LINES.encode(),
}


def read_by_training(path: Path, bad_rows="error") -> list[tuple[str, str]]:
    rows = load_prompts(path, bad_rows=bad_rows)
    return [(row["prompt"], row["answer"]) for row in rows]


def read_by_evaluation(path: Path, bad_rows="error") -> list[tuple[str, str]]:
    problems = load_task(f"own={path}", bad_rows=bad_rows).problems
    return [
        (problem.prompt[0]["content"].partition(" Please reason")[0], problem.gold)
        for problem in problems
    ]


READERS = pytest.mark.parametrize("read", [read_by_training, read_by_evaluation])


@READERS
@pytest.mark.parametrize("name", GOOD)
def test_training_and_evaluation_read_the_same_rows_from_every_file(tmp_path: Path, name, read):
    (tmp_path / name).write_bytes(GOOD[name])
    first = ("a\u2028b\x85c?", "1") if name == "breaks.jsonl" else ("one?", "1")
    assert read(tmp_path / name) == [first, ("zwei – 二?", "2")]


@READERS
@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_by_both_and_left_out_where_that_is_asked(tmp_path: Path, name, read):
    (tmp_path / name).write_bytes(BAD[name])
    with pytest.raises(ValueError, match=rf"{name}'?, (line|row) 2: "):
        read(tmp_path / name)
    assert read(tmp_path / name, "skip") == [("one?", "1")]


@READERS
@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_is_not_what_it_claims_is_refused_by_both(tmp_path: Path, name, read):
    (tmp_path / name).write_bytes(UNREADABLE[name])
    with pytest.raises(ValueError, match=name):
        read(tmp_path / name)
