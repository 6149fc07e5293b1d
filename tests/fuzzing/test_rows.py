"""Rows of prompts and problems: whatever a file holds, it is read or refused in a sentence."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oprd.evaluation.tasks.files import parse_problems
from oprd.files import read_rows
from oprd.prompts.examples import PROMPT_COLUMNS
from oprd.prompts.load import load_prompts
from tests.fuzzing.drawn import FEW, ODD, OURS, damaged, json_values

ROWS = [
    {"prompt": "What is 1 + 2?", "answer": "3"},
    {"prompt": [{"role": "user", "content": "é?"}], "reward_model": {"ground_truth": "4"}},
]
COLUMNS = (*PROMPT_COLUMNS, "answer", "reward_model", "input", "text")
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["system", "user", "assistant", "tool"]) | json_values(),
            "content": json_values(),
        },
    ),
    max_size=3,
)


def content(kind: str) -> bytes:
    """A file of good rows."""
    if kind.startswith("parquet"):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist([ROWS[0]] * 3), sink)
        return sink.getvalue().to_pybytes()
    if kind.startswith("csv"):
        return b'prompt,answer\n"What is 1 + 2?",3\nb,4\n'
    rows = [json.dumps(ROWS[0])] * 3
    return ("[" + ",".join(rows) + "]" if kind.startswith("json.") else "\n".join(rows)).encode()


def read(path: Path) -> None:
    """As prompts and as problems, with bad rows refused and left out."""
    for bad_rows in ("error", "skip"):
        try:
            prompts = load_prompts(path, bad_rows=bad_rows)
            assert len(prompts) and set(prompts.column_names) <= {"prompt", "answer"}
        except OURS as error:
            assert path.name in str(error)
        try:
            problems, _ = parse_problems(read_rows(path), path.name, bad_rows)
            assert all(isinstance(problem.gold, str) for problem in problems)
        except OURS as error:
            assert path.name in str(error)


@FEW
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(COLUMNS), json_values() | MESSAGES, max_size=4),
        min_size=1,
        max_size=3,
    )
)
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_no_row_is_another_kind_of_error(tmp_path: Path, kind: str, rows: list[Any]):
    path = tmp_path / f"x.{kind}"
    lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) if kind == "jsonl" else f"[{','.join(lines)}]")
    read(path)


@FEW
@given(data=st.data())
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "jsonl.gz", "csv.gz"])
def test_no_bytes_of_a_file_of_rows_are_another_kind_of_error(
    tmp_path: Path, kind: str, data: st.DataObject
):
    path = tmp_path / f"x.{kind}"
    whole = content(f"{kind}.")
    if kind.endswith(".gz") and data.draw(st.booleans()):
        path.write_bytes(gzip.compress(data.draw(damaged(whole))))
    else:
        path.write_bytes(
            data.draw(damaged(gzip.compress(whole) if kind.endswith(".gz") else whole))
        )
    read(path)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd[:5].decode(errors="replace"))
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "jsonl.gz"])
def test_what_a_parser_gives_up_on_is_refused(tmp_path: Path, kind: str, odd: bytes):
    path = tmp_path / f"x.{kind}"
    path.write_bytes(odd)
    read(path)
