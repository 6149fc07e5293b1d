import csv
import gzip
import json
import logging
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oprd.prompts.load import load_prompts, with_prompts

CHAT = [{"role": "user", "content": "2 + 2?"}]
MESSAGE = {"role": "user", "content": "a"}
TEXT_ROWS = [{"problem": "2 + 2?", "answer": "4"}, {"problem": "3 + 3?", "answer": "6"}]

NO_COLUMN = "no column 'prompt', 'problem', 'messages', 'question' or 'instruction'"
ASKED = {"role": "user", "content": "2 + 2?"}
SAID = {"role": "assistant", "content": "4"}
SYSTEM = {"role": "system", "content": "Be brief."}

# Every example writes over the same file.
FEW = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(path: Path, rows: list) -> str:
    """Rows in the format that the file's name says."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return str(path)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        if name.endswith(".csv"):
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        elif name.endswith(".json"):
            json.dump(rows, file, indent=1)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return str(path)


# --- layouts and formats ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["x.parquet", "x.jsonl", "x.json", "x.csv", "x.jsonl.gz", "x.csv.gz", "X.JSONL"]
)
def test_problem_and_answer_are_read_from_every_format(tmp_path: Path, name: str):
    dataset = load_prompts(write(tmp_path / name, TEXT_ROWS))
    assert dataset[:] == {"prompt": ["2 + 2?", "3 + 3?"], "answer": ["4", "6"]}


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl", "x.json"])
def test_chat_messages_with_a_ground_truth_keep_role_and_content(tmp_path: Path, name: str):
    message = {"content": "2 + 2?", "role": "user", "name": None}
    row = {"prompt": [message], "reward_model": {"ground_truth": "4", "style": "rule"}, "id": 1}
    dataset = load_prompts(write(tmp_path / name, [row, row]))
    assert dataset[1] == {"prompt": CHAT, "answer": "4"}


COLUMNS = [
    ({"question": "2 + 2?", "answer": "4"}, "2 + 2?", "4"),
    ({"instruction": "Add.", "input": "2, 2", "output": "4"}, "Add.\n\n2, 2", None),
    ({"instruction": "Say hello.", "input": "", "output": "Hi"}, "Say hello.", None),
    ({"messages": [ASKED, SAID]}, [ASKED], None),
    ({"messages": [SYSTEM, ASKED, SAID, ASKED, SAID]}, [SYSTEM, ASKED, SAID, ASKED], None),
    ({"messages": [SYSTEM, ASKED]}, [SYSTEM, ASKED], None),
    ({"prompt": "2 + 2?", "messages": [ASKED, SAID]}, "2 + 2?", None),
    ({"problem": "2 + 2?", "question": "?", "answer": 4}, "2 + 2?", "4"),
]


@pytest.mark.parametrize(("row", "prompt", "answer"), COLUMNS)
def test_the_column_of_the_prompt_is_found_in_a_file_and_in_a_dataset(
    tmp_path: Path, row: dict, prompt: object, answer: str | None
):
    for found in (
        load_prompts(write(tmp_path / "x.jsonl", [row])),
        load_prompts(write(tmp_path / "x.parquet", [row])),
        with_prompts(Dataset.from_list([row]), "train_dataset"),
    ):
        assert found[0]["prompt"] == prompt
        if "prompt" not in row:
            assert found[0].get("answer") == answer


@pytest.mark.parametrize(
    ("row", "column", "prompt"),
    [
        ({"prompt": "old", "query": "2 + 2?"}, "query", "2 + 2?"),
        ({"turns": [ASKED, SAID]}, "turns", [ASKED]),
        ({"prompt": "old", "messages": [ASKED, SAID]}, "messages", [ASKED]),
    ],
)
def test_a_column_that_is_named_is_read_and_no_other(tmp_path: Path, row, column, prompt):
    path = write(tmp_path / "x.jsonl", [row])
    assert load_prompts(path, prompt_column=column)["prompt"][:] == [prompt]
    with pytest.raises(ValueError, match=r"no column 'no_such' for prompt_column \(its columns: "):
        load_prompts(path, prompt_column="no_such")


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([SAID], "the prompt is a list without messages"),
        ([ASKED, SAID, SAID], "the roles are .*take turns"),
        ([{"from": "human", "value": "a"}], "message 1 has the role None"),
    ],
)
def test_a_conversation_that_leaves_no_prompt_is_a_bad_row(tmp_path: Path, messages, problem):
    rows = [{"messages": [ASKED, SAID]}, {"messages": messages}]
    with pytest.raises(ValueError, match=f"line 2: {problem}"):
        load_prompts(write(tmp_path / "x.jsonl", rows))


BAD_IN_EVERY_ROW = [
    [{"query": "a"}, {"query": "b"}],
    [{"prompt": ""}, {"prompt": None}],
    [{"prompt": [SAID]}],
]


@pytest.mark.parametrize("rows", BAD_IN_EVERY_ROW)
def test_no_one_is_told_to_skip_every_row(tmp_path: Path, rows: list):
    path = write(tmp_path / "x.jsonl", rows)
    with pytest.raises(ValueError, match=r"line 1: .*The other rows are like it\.$"):
        load_prompts(path)
    with pytest.raises(ValueError, match=r"line 1: .*with --bad_rows skip\.$"):
        load_prompts(write(tmp_path / "x.jsonl", [*rows, {"prompt": "good"}]))


def test_python_is_told_the_same_of_a_dataset_without_prompts():
    rows = Dataset.from_list([{"query": "a"}])
    streamed = rows.to_iterable_dataset()
    for dataset in (rows, {"dev": rows}, streamed):
        with pytest.raises(ValueError, match=f"train_dataset.* has {NO_COLUMN}.*--prompt_column"):
            with_prompts(dataset, "train_dataset")
    with pytest.raises(ValueError, match=r"row 2: the question is empty\. Mend it, or leave it"):
        with_prompts(Dataset.from_list([{"question": "a"}, {"question": ""}]), "train_dataset")


def test_a_stream_and_a_dataset_with_prompts_are_passed_on():
    rows = Dataset.from_list([{"prompt": "a", "other": 1}])
    assert with_prompts(rows, "train_dataset") is rows
    assert with_prompts(None, "eval_dataset") is None
    asked = Dataset.from_list([{"messages": [ASKED, SAID]}]).to_iterable_dataset()
    assert next(iter(with_prompts(asked, "train_dataset")))["prompt"] == [ASKED]


def test_a_check_of_the_models_refuses_its_rows_by_name(tmp_path: Path):
    def no_b(prompt: object) -> None:
        if "b" in str(prompt):
            raise ValueError("the prompt has a b")

    path = write(tmp_path / "x.jsonl", [{"prompt": p} for p in "abc"])
    with pytest.raises(ValueError, match=r"line 2: the prompt has a b.*--bad_rows skip"):
        load_prompts(path, check=no_b)
    assert load_prompts(path, check=no_b, bad_rows="skip")["prompt"][:] == ["a", "c"]


def test_prompts_keep_the_name_of_where_they_are_from(tmp_path: Path):
    path = write(tmp_path / "x.jsonl", [{"prompt": "a"}])
    assert load_prompts(path).select([0]).info.dataset_name == path


def test_a_prompt_without_answers_gives_one_column(tmp_path: Path):
    dataset = load_prompts(write(tmp_path / "x.jsonl", [{"prompt": "a"}]))
    assert dataset.column_names == ["prompt"]


def test_numbers_become_text_and_an_absent_answer_stays_absent(tmp_path: Path):
    answers = [4, 4.5, "", None, "x"]
    rows = [{"prompt": "a", "answer": answer} for answer in answers]
    dataset = load_prompts(write(tmp_path / "x.jsonl", rows))
    assert dataset["answer"][:] == ["4", "4.5", None, None, "x"]


def test_a_json_file_may_hold_lines(tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_text('{"prompt": "a"}\n\n{"prompt": "b"}\n')
    assert load_prompts(path)["prompt"][:] == ["a", "b"]


def test_a_saved_folder_and_one_of_its_splits_are_read(tmp_path: Path):
    Dataset.from_list(TEXT_ROWS).save_to_disk(tmp_path / "one")
    splits = {"train": Dataset.from_list(TEXT_ROWS[:1]), "dev": Dataset.from_list(TEXT_ROWS[1:])}
    DatasetDict(splits).save_to_disk(tmp_path / "two")
    assert len(load_prompts(tmp_path / "one")) == 2
    assert load_prompts(tmp_path / "two", split="dev")["answer"][:] == ["6"]
    with pytest.raises(ValueError, match=r"two' has no split 'test', only train, dev"):
        load_prompts(tmp_path / "two", split="test")


def test_a_single_file_has_no_other_split(tmp_path: Path):
    path = write(tmp_path / "x.jsonl", TEXT_ROWS)
    with pytest.raises(
        ValueError, match=r"is one file, which has only the split 'train': .*--eval_split"
    ):
        load_prompts(path, split="test")


def test_a_task_gives_the_same_prompts_for_the_same_seed_and_disjoint_splits():
    train = load_prompts("arithmetic", max_prompts=50, seed=3)
    assert train[:] == load_prompts("arithmetic", max_prompts=50, seed=3)[:]
    test = load_prompts("arithmetic", split="test", max_prompts=50, seed=3)
    assert len(train) == len(test) == 50
    assert not set(train["prompt"]) & set(test["prompt"])
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'dev'"):
        load_prompts("arithmetic", split="dev")


def test_max_prompts_stops_before_a_later_bad_row(tmp_path: Path):
    path = write(tmp_path / "x.jsonl", [{"prompt": "a"}, {"prompt": "b"}, {"prompt": ""}])
    assert load_prompts(path, max_prompts=2)["prompt"][:] == ["a", "b"]
    with pytest.raises(ValueError, match="line 3"):
        load_prompts(path, max_prompts=3)
    with pytest.raises(ValueError, match="max_prompts must be at least 1, got 0"):
        load_prompts(path, max_prompts=0)


@FEW
@given(prompts=st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=5))
def test_any_text_comes_through_unchanged(tmp_path: Path, prompts: list[str]):
    rows = [{"prompt": [{"role": "user", "content": text}], "answer": "1"} for text in prompts]
    for name in ("x.jsonl", "x.parquet"):
        dataset = load_prompts(write(tmp_path / name, rows))
        assert [row["prompt"][0]["content"] for row in dataset] == prompts


# --- bad rows -----------------------------------------------------------------------------------

BAD_PROMPTS = [
    (None, "the prompt is missing"),
    ("", "the prompt is empty"),
    (" \n", "the prompt is empty"),
    (7, "the prompt is int 7, not text or a list of chat messages"),
    ("\ud800", "the prompt is not valid Unicode at character 0"),
    ([], "the prompt is a list without messages"),
    (["hi"], "message 1 is str 'hi', not a 'role' and a 'content'"),
    ([{"role": "user", "content": ""}], "the content of message 1 is empty"),
    ([{"role": "user", "content": None}], "the content of message 1 is missing"),
    ([{"role": "user"}], "the content of message 1 is missing"),
    ([{"role": "user", "content": [1]}], r"the content of message 1 is list \[1\], not text"),
    ([{"role": "bot", "content": "a"}], "message 1 has the role 'bot', not one of system, user"),
    ([{"role": "assistant", "content": "a"}], "the roles are .*the last message is the user's"),
    ([{"role": "system", "content": "a"}], "the roles are .*'system'"),
    ([MESSAGE, {"role": "assistant", "content": "b"}], "the roles are .*'assistant'"),
    ([MESSAGE, MESSAGE], "the roles are .*take turns"),
    ([MESSAGE, {"role": "system", "content": "b"}], "the roles are "),
]


@pytest.mark.parametrize(("prompt", "problem"), BAD_PROMPTS)
def test_a_bad_prompt_is_an_error_that_names_file_line_and_way_out(
    tmp_path: Path, prompt: object, problem: str
):
    good = CHAT if isinstance(prompt, list) else "fine"
    path = write(tmp_path / "x.jsonl", [{"prompt": good}, {"prompt": prompt}])
    expected = rf"x\.jsonl', line 2: {problem}.*leave bad rows out with --bad_rows skip"
    with pytest.raises(ValueError, match=expected):
        load_prompts(path)
    assert load_prompts(path, bad_rows="skip")["prompt"][:] == [good]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"prompt": "a"', "it is not valid JSON"),
        (b"\xff\xfe\xfd", "it is not valid JSON"),
        (b"[" * 100_000, "it is not valid JSON"),
        (b'["prompt"]', "it is a JSON list, not an object with columns"),
        (b'{"text": "a"}', r"it has no column 'prompt', .* \(its columns: 'text'\)"),
        (b"{}", r"it has no column 'prompt', .* \(its columns: none\)"),
        (b'{"prompt": "a", "answer": true}', "the answer is bool True, not text or a number"),
        (b'{"prompt": [{"role": "user", "content": "a"}]}', "text and chat messages are mixed"),
    ],
)
def test_a_broken_line_is_named_and_can_be_skipped(tmp_path: Path, line: bytes, problem: str):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n\n' + line + b'\n{"prompt": "b"}\n')
    with pytest.raises(ValueError, match=rf"x\.jsonl', line 3: {problem}"):
        load_prompts(path)
    assert load_prompts(path, bad_rows="skip")["prompt"][:] == ["a", "b"]


@FEW
@given(garbage=st.binary(max_size=40).filter(lambda b: b"\n" not in b))
def test_no_line_can_stop_a_run_that_skips_bad_rows(tmp_path: Path, garbage: bytes):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n' + garbage)
    assert load_prompts(path, bad_rows="skip")["prompt"][0] == "a"


def test_skipped_rows_are_counted_and_the_first_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = write(tmp_path / "x.jsonl", [{"prompt": p} for p in ("a", "", None, "b")])
    with caplog.at_level(logging.WARNING):
        load_prompts(path, bad_rows="skip")
    assert "2 bad rows skipped, 2 kept" in caplog.text
    assert "line 2: the prompt is empty" in caplog.text


def test_no_bad_row_leaves_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    load_prompts(write(tmp_path / "x.jsonl", [{"prompt": "a"}]), bad_rows="skip")
    assert not caplog.records


def test_rows_are_numbered_through_all_batches_of_a_table(tmp_path: Path):
    rows = [{"prompt": "a"}] * 8999 + [{"prompt": None}]
    with pytest.raises(ValueError, match=r"x\.parquet', row 9000: the prompt is missing"):
        load_prompts(write(tmp_path / "x.parquet", rows))


def test_nothing_left_is_an_error(tmp_path: Path):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(ValueError, match=r"empty\.jsonl' has no row to train on\."):
        load_prompts(empty)
    path = write(tmp_path / "x.jsonl", [{"prompt": ""}, {"prompt": None}])
    with pytest.raises(ValueError, match=r"all 2 are bad, the first is .*line 1: the prompt"):
        load_prompts(path, bad_rows="skip")


def test_an_unquoted_comma_does_not_cut_a_prompt_short(tmp_path: Path):
    path = tmp_path / "x.csv"
    path.write_text('prompt\n"Hello, you"\nHello, world\n')
    with pytest.raises(ValueError, match=r"x\.csv', row 2: it has more fields than the header"):
        load_prompts(path)
    assert load_prompts(path, bad_rows="skip")["prompt"][:] == ["Hello, you"]


def test_bytes_that_are_not_utf8_make_their_row_bad(tmp_path: Path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbfprompt\ngood\n\xff\n")
    with pytest.raises(ValueError, match=r"x\.csv', row 2: the prompt is not valid Unicode"):
        load_prompts(path)


# --- bad sources --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.parquet", "x.csv"])
def test_a_table_without_prompts_lists_its_columns(tmp_path: Path, name: str):
    path = write(tmp_path / name, [{"query": "a", "id": 1}])
    with pytest.raises(ValueError, match=rf"{NO_COLUMN} \(its columns: 'query', 'id'\)") as caught:
        load_prompts(path)
    assert "name it with --prompt_column" in str(caught.value)
    assert "skip" not in str(caught.value)


def test_a_saved_folder_without_prompts_lists_its_columns(tmp_path: Path):
    Dataset.from_list([{"query": "a"}]).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=rf"{NO_COLUMN} \(its columns: 'query'\)"):
        load_prompts(tmp_path / "saved")


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl.gz", "x.csv.gz", "x.json"])
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(b"[1, 2")
    with pytest.raises(ValueError, match=rf"{name}' cannot be read: "):
        load_prompts(path)


def test_a_truncated_file_is_named(tmp_path: Path):
    path = Path(write(tmp_path / "x.jsonl.gz", TEXT_ROWS * 100))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"x\.jsonl\.gz' cannot be read: "):
        load_prompts(path)


def test_an_unknown_ending_lists_those_that_are_known(tmp_path: Path):
    (tmp_path / "x.txt").write_text("a")
    with pytest.raises(ValueError, match=r"x\.txt' must end in one of \.parquet, \.jsonl"):
        load_prompts(tmp_path / "x.txt")


@pytest.mark.parametrize("name", ["no.parquet", "data/no.jsonl.gz", "./no", "../no", "/no/y"])
def test_a_missing_file_is_not_looked_for_on_the_hub(name: str):
    with pytest.raises(FileNotFoundError, match="there is no such file or folder"):
        load_prompts(name)


def test_an_unknown_way_with_bad_rows_is_refused():
    with pytest.raises(ValueError, match="bad_rows must be 'error' or 'skip', got 'drop'"):
        load_prompts("arithmetic", bad_rows="drop")  # type: ignore[arg-type]


def test_a_dataset_that_the_hub_does_not_give_is_named(monkeypatch: pytest.MonkeyPatch):
    def unreachable(*args: object, **kwargs: object):
        raise ConnectionError("Couldn't reach\nthe Hub")

    monkeypatch.setattr("oprd.prompts.load.load_dataset", unreachable)
    expected = (
        r"'owner/name' cannot be loaded from the Hugging Face hub \(Couldn't reach the Hub\): with"
    )
    with pytest.raises(ValueError, match=expected):
        load_prompts("owner/name")


# --- real data ----------------------------------------------------------------------------------


@pytest.mark.skipif("OPRD_TEST_DATA" not in os.environ, reason="OPRD_TEST_DATA names no folder")
def test_every_row_of_published_files_is_read():
    files = sorted(Path(os.environ["OPRD_TEST_DATA"]).glob("*.parquet"))
    assert files
    for path in files:
        dataset = load_prompts(path)
        assert len(dataset) == pq.read_metadata(path).num_rows
        assert all(dataset["answer"])
        assert dataset[0]["prompt"][-1]["role"] == "user"
