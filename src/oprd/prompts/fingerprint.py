"""Whether two runs train on the same prompts."""

import hashlib
from collections.abc import Iterator
from typing import Any, cast

import pyarrow
from datasets import Dataset

# How many rows are read at once.
ROWS = 10_000


def prompts_fingerprint(dataset: Any) -> dict[str, Any] | None:
    """`rows` and `hash` of the prompts of a dataset, in their order; None for a stream."""
    if not isinstance(dataset, Dataset):
        return None
    digest = hashlib.sha256()
    prompts = dataset.select_columns(["prompt"]).with_format("arrow")
    for table in cast(Iterator[pyarrow.Table], prompts.iter(batch_size=ROWS)):
        whole = table.combine_chunks().replace_schema_metadata(None)
        sink = pyarrow.BufferOutputStream()
        with pyarrow.ipc.new_stream(sink, whole.schema) as writer:
            writer.write_table(whole)
        digest.update(sink.getvalue())
    return {"rows": len(dataset), "hash": digest.hexdigest()[:16]}
