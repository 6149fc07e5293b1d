"""Files that exist whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file to write to, which takes the place of `path` where the block ends without an error."""
    partial = path.with_name(path.name + ".partial")
    yield partial
    partial.replace(path)
