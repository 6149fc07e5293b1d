"""Prompts from wherever they are: the hub, a file, a saved folder or an installed task.

Every row is checked before training starts; a bad one is an error that names it, or is counted and
left out.
"""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
from datasets import Dataset, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError

from oprd.evaluation.tasks.load import generate_task, is_generated
from oprd.files import BATCH_ROWS, SUFFIXES, Row, batch_rows, read_rows
from oprd.names import locate
from oprd.prompts.examples import Example, parse_example, prompt_columns, table

BadRows = Literal["error", "skip"]

# How many problems a task makes where nobody says.
TASK_PROMPTS = 4096

logger = logging.getLogger(__name__)


def load_prompts(
    source: str | Path,
    *,
    split: str = "train",
    bad_rows: BadRows = "error",
    config_name: str | None = None,
    max_prompts: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load prompts into a `prompt` column and, where answers are known, an `answer` column.

    Three layouts are understood: `prompt`; `prompt` with the answer in
    `reward_model.ground_truth`; `problem`. An `answer` column is kept with any of them. A prompt is
    text, or chat messages: an optional system message, then user and assistant in turn, user last.

    Args:
        source: a parquet, JSONL, JSON or CSV file; a folder saved by `datasets` or holding data
            files; the name of an installed task; or that of a dataset on the hub.
        split: which split; a single file has only `"train"`.
        bad_rows: `"error"` stops at the first bad row, `"skip"` leaves bad rows out and logs how
            many there were.
        config_name: which configuration of a dataset on the hub.
        max_prompts: stop after this many; for a task, how many to make.
        seed: which problems a task makes.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the source cannot be read, a row is bad, or no row is left.
    """
    if bad_rows not in get_args(BadRows):
        raise ValueError(f"bad_rows must be 'error' or 'skip', got {bad_rows!r}.")
    if max_prompts is not None and max_prompts < 1:
        raise ValueError(f"max_prompts must be at least 1, got {max_prompts}.")
    source = str(source)
    if is_generated(source):
        rows = _task_rows(source, split, max_prompts or TASK_PROMPTS, seed)
    elif (path := locate(source, "dataset", SUFFIXES)) and path.is_file():
        if split != "train":
            raise ValueError(f"{source!r} is one file, which has only the split 'train'.")
        rows = read_rows(path, partial(prompt_columns, source=str(path)))
    else:
        rows = _dataset_rows(source, path, split, config_name)
    tally = Tally(source, bad_rows)
    dataset = _collect(islice(_examples(rows, tally), max_prompts))
    tally.report()
    return dataset


@dataclass
class Tally:
    """What becomes of a source's rows: the good are counted, the bad refused or counted."""

    source: str
    bad_rows: BadRows
    good: int = 0
    bad: int = 0
    first: str = ""

    def refuse(self, number: int, problem: object) -> None:
        """Stop at a bad row, or count it.

        Raises:
            ValueError: bad rows are errors.
        """
        unit = "line" if ".jsonl" in self.source.lower() else "row"
        sentence = f"{self.source!r}, {unit} {number}: {problem}"
        if self.bad_rows == "error":
            raise ValueError(f"{sentence}. Mend it, or leave bad rows out with --bad_rows skip.")
        self.bad += 1
        self.first = self.first or sentence

    def report(self) -> None:
        """Log how many rows were skipped.

        Raises:
            ValueError: no row is left.
        """
        if not self.good:
            why = f": all {self.bad} are bad, the first is {self.first}" if self.bad else ""
            raise ValueError(f"{self.source!r} has no row to train on{why}.")
        if self.bad:
            counts = f"{self.bad} bad rows skipped, {self.good} kept"
            logger.warning("%s; the first bad one is %s.", counts, self.first)


def _examples(rows: Iterable[Row], tally: Tally) -> Iterator[Example]:
    kind: type | None = None
    for row in rows:
        try:
            if row.problem:
                raise ValueError(row.problem)
            example = parse_example(row.fields)
            if kind not in (None, type(example.prompt)):
                raise ValueError("text and chat messages are mixed in one dataset")
        except ValueError as error:
            tally.refuse(row.number, error)
            continue
        kind = type(example.prompt)
        tally.good += 1
        yield example


def _collect(examples: Iterator[Example]) -> Dataset:
    tables = []
    while batch := list(islice(examples, BATCH_ROWS)):
        tables.append(table(batch))
    prompts = pa.concat_tables(tables) if tables else pa.table({"prompt": [], "answer": []})
    answers = prompts["answer"]
    return Dataset(prompts.drop("answer") if answers.null_count == len(answers) else prompts)


def _task_rows(name: str, split: str, count: int, seed: int) -> Iterator[Row]:
    task = generate_task(name, split, count, seed)  # pyright: ignore[reportArgumentType]
    for number, row in enumerate(task.rows(), 1):
        yield Row(number, row)


def _dataset_rows(
    source: str, folder: Path | None, split: str, config_name: str | None
) -> Iterator[Row]:
    dataset = _load(source, folder, split, config_name)
    dataset = dataset.select_columns(prompt_columns(dataset.column_names, source))
    return batch_rows(dataset.with_format("arrow").iter(BATCH_ROWS))


def _load(source: str, folder: Path | None, split: str, config_name: str | None) -> Dataset:
    saved = folder and any((folder / n).is_file() for n in ("state.json", "dataset_dict.json"))
    try:
        if not saved:
            return load_dataset(str(folder or source), config_name, split=split)
        dataset = load_from_disk(str(folder))
    except (DatasetsError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        where = "" if folder else "from the Hugging Face hub "
        raise ValueError(f"dataset {source!r} cannot be loaded {where}({reason})") from error
    if isinstance(dataset, Dataset):
        return dataset
    if split not in dataset:
        raise ValueError(
            f"dataset {source!r} has no split {split!r}, only {', '.join(map(str, dataset))}."
        )
    return dataset[split]
