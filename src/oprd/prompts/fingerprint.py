"""Whether two runs train on the same prompts."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, cast

import pyarrow
from datasets import Dataset

from oprd.prompts.examples import TEACHER_COLUMNS

# How many rows are read at once.
ROWS = 10_000


def prompts_fingerprint(
    dataset: Any, columns: Sequence[str] = ("prompt",)
) -> dict[str, Any] | None:
    """`rows` and `hash` of the prompts of a dataset, in their order; None for a stream.

    Args:
        dataset: of the run.
        columns: that are read, at least one.
    """
    if not isinstance(dataset, Dataset):
        return None
    digest = hashlib.sha256()
    prompts = dataset.select_columns([*columns]).with_format("arrow")
    for table in cast(Iterator[pyarrow.Table], prompts.iter(batch_size=ROWS)):
        whole = table.combine_chunks().replace_schema_metadata(None)
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, whole.schema) as writer:
            writer.write_table(whole)
        digest.update(sink.getvalue())
    return {"rows": len(dataset), "hash": digest.hexdigest()[:16]}


def teacher_prompts_facts(
    dataset: Any, differ: Callable[[Collection[str]], bool], named: Collection[str]
) -> dict[str, Any]:
    """What the teacher reads in the place of the prompts: `read`, and `rows` and `hash` of it.

    Args:
        dataset: of the run; of a stream it is known only whether the teacher has its own.
        differ: tells by the names of columns whether it does.
        named: columns of its templates, which are settings of the run.
    """
    columns = getattr(dataset, "column_names", None) or ()
    if not differ(columns):
        return {"read": "the student's"}
    own = [n for n in columns if n in TEACHER_COLUMNS or (n in named and n != "prompt")]
    return {"read": "its own", **((prompts_fingerprint(dataset, own) or {}) if own else {})}
