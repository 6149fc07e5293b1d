"""Prompts from wherever they are: the hub, a file, a saved folder or an installed task.

Every row is checked before training starts; a bad one is an error that names it, or is counted and
left out.
"""

import logging
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
from datasets import Dataset, DatasetInfo, load_dataset, load_from_disk
from datasets.exceptions import DatasetsError

from oprd.evaluation.tasks.load import generate_task, is_generated
from oprd.files import BATCH_ROWS, SUFFIXES, Row, batch_rows, read_rows
from oprd.hub import warn_of_waiting
from oprd.names import locate
from oprd.prompts.examples import Example, parse_example, read_columns, table

BadRows = Literal["error", "skip"]
Check = Callable[[Any], None]

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
    prompt_column: str | None = None,
    check: Check | None = None,
    keep: Collection[str] = (),
) -> Dataset:
    """Load prompts into a `prompt` column and, where answers are known, an `answer` column.

    Beside them stand the prompts of a teacher's own (`examples.TEACHER_COLUMNS`), where there are
    any.

    A row's prompt is the first of `examples.PROMPT_COLUMNS` that it has: text, or chat messages,
    which are an optional system message, then user and assistant in turn, user last. A conversation
    in another column than `prompt` may end in an answer of the assistant, which is left out.

    Args:
        source: a parquet, JSONL, JSON or CSV file; a folder saved by `datasets` or holding data
            files; the name of an installed task; or that of a dataset on the hub.
        split: which split; a single file has only `"train"`.
        bad_rows: `"error"` stops at the first bad row, `"skip"` leaves bad rows out and logs how
            many there were.
        config_name: which configuration of a dataset on the hub.
        max_prompts: stop after this many; for a task, how many to make.
        seed: which problems a task makes.
        prompt_column: where the prompts are, if not where they are looked for.
        check: refuses, with a ValueError, a prompt that the model cannot read.
        keep: further columns that are kept as they are.

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
            raise ValueError(
                f"{source!r} is one file, which has only the split 'train': hold some of its "
                "prompts out for evaluation with --eval_split 0.05."
            )
        choose = partial(read_columns, source=str(path), prompt_column=prompt_column, keep=keep)
        rows = read_rows(path, choose)
    else:
        rows = _rows_of(_load(source, path, split, config_name), source, prompt_column, keep)
    tally = Tally(source, bad_rows)
    read = partial(_example, prompt_column=prompt_column, check=check, keep=keep)
    most = max_prompts and min(max_prompts, sys.maxsize)
    dataset = _collect(islice(_examples(rows, tally, read), most), source)
    tally.report()
    return dataset


def with_prompts(dataset: Any, name: str, keep: Collection[str] = ()) -> Any:
    """A dataset that was given as an object, with its prompts in the column `prompt`.

    One that has the column, or does not say which columns it has, is left as it is.

    Args:
        dataset: or a mapping of several.
        name: what messages call it.
        keep: see `load_prompts`.

    Raises:
        ValueError: there is no column for prompts, or a row of the one that is read is bad.
    """
    if isinstance(dataset, dict):
        return {key: with_prompts(value, f"{name} {key!r}", keep) for key, value in dataset.items()}
    columns = getattr(dataset, "column_names", None)
    if not columns or "prompt" in columns:
        return dataset
    if not isinstance(dataset, Dataset):
        read_columns(columns, name)
        return dataset.map(lambda row: {"prompt": parse_example(row).prompt})
    tally = Tally(name, "error", "leave it out")
    rows = _rows_of(dataset, name, keep=keep)
    found = _examples(rows, tally, partial(_example, keep=keep))
    found = _collect(found, dataset.info.dataset_name)
    tally.report()
    return found


@dataclass
class Tally:
    """What becomes of a source's rows: the good are counted, the bad refused or counted."""

    source: str
    bad_rows: BadRows
    way_out: str = "leave bad rows out with --bad_rows skip"
    good: int = 0
    bad: int = 0
    first: str = ""

    def refuse(self, number: int, problem: object, others: Callable[[], bool]) -> None:
        """Stop at a bad row, or count it.

        Args:
            number: of the row.
            problem: what is wrong with it.
            others: whether any row after it is good.

        Raises:
            ValueError: bad rows are errors.
        """
        unit = "line" if ".jsonl" in self.source.lower() else "row"
        sentence = f"{self.source!r}, {unit} {number}: {problem}"
        if self.bad_rows == "error":
            # To leave out every row is no advice.
            skippable = self.good or others()
            advice = f"Mend it, or {self.way_out}" if skippable else "The other rows are like it"
            raise ValueError(f"{sentence}. {advice}.")
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


def _examples(
    rows: Iterable[Row], tally: Tally, read: Callable[[Row], Example]
) -> Iterator[Example]:
    kind: type | None = None
    rows = iter(rows)

    def is_good(row: Row) -> bool:
        try:
            read(row)
        except ValueError:
            return False
        return True

    for row in rows:
        try:
            example = read(row)
            if kind not in (None, type(example.prompt)):
                raise ValueError("text and chat messages are mixed in one dataset")
        except ValueError as error:
            tally.refuse(row.number, error, lambda: any(map(is_good, rows)))
            continue
        kind = type(example.prompt)
        tally.good += 1
        yield example


def _example(
    row: Row,
    prompt_column: str | None = None,
    check: Check | None = None,
    keep: Collection[str] = (),
) -> Example:
    if row.problem:
        raise ValueError(row.problem)
    example = parse_example(row.fields, prompt_column, keep)
    if check is not None:
        check(example.prompt)
    return example


def _collect(examples: Iterator[Example], name: str | None) -> Dataset:
    tables = []
    while batch := list(islice(examples, BATCH_ROWS)):
        tables.append(table(batch))
    # A column may be empty in one batch and whole numbers in the next.
    found = pa.concat_tables(tables, promote_options="permissive") if tables else None
    prompts = pa.table({"prompt": [], "answer": []}) if found is None else found
    answers = prompts["answer"]
    prompts = prompts.drop("answer") if answers.null_count == len(answers) else prompts
    # The name stays with it, for the model card.
    return Dataset(prompts, DatasetInfo(dataset_name=name))


def _task_rows(name: str, split: str, count: int, seed: int) -> Iterator[Row]:
    task = generate_task(name, split, count, seed)  # pyright: ignore[reportArgumentType]
    for number, row in enumerate(task.rows(), 1):
        yield Row(number, row)


def _rows_of(
    dataset: Dataset, name: str, prompt_column: str | None = None, keep: Collection[str] = ()
) -> Iterator[Row]:
    columns = read_columns(dataset.column_names, name, prompt_column, keep)
    return batch_rows(dataset.select_columns(columns).with_format("arrow").iter(BATCH_ROWS))


def _load(source: str, folder: Path | None, split: str, config_name: str | None) -> Dataset:
    saved = folder and any((folder / n).is_file() for n in ("state.json", "dataset_dict.json"))
    try:
        if not saved:
            warn_of_waiting(str(folder or source))
            return load_dataset(str(folder or source), config_name, split=split)
        dataset = load_from_disk(str(folder))
    except (DatasetsError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        where = "" if folder else "from the Hugging Face hub "
        way_out = "." if folder else ": with a copy at hand, name its file or folder."
        said = f"dataset {source!r} cannot be loaded {where}({reason}){way_out}"
        raise ValueError(said) from error
    if isinstance(dataset, Dataset):
        return dataset
    if split not in dataset:
        raise ValueError(
            f"dataset {source!r} has no split {split!r}, only {', '.join(map(str, dataset))}."
        )
    return dataset[split]
