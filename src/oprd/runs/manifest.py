"""What a saved folder holds, written when everything else is there: it makes the folder complete.

A manifest names every file with its size and the hash of its bytes, so that a save that was cut
off, a file that is gone and a byte that has changed are all seen before anything is loaded.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from oprd.runs.atomic import synchronize, written_whole
from oprd.text import escaped, parse_json

MANIFEST = "manifest.json"
# A model's card, of which nothing is loaded: it is written again when more is known of the model.
CARD = "README.md"
# What a model is loaded from.
STUDENT = re.compile(
    r"(model|pytorch_model|adapter_model)[^/]*\.(safetensors|bin)(\.index\.json)?|adapter_config\.json"
)
# In a folder while it is saved: without a manifest beside it, the save was cut off. It holds the
# manifest that was there before. Files of such a name are not uploaded.
SAVING = "_saving"
FORMAT = 1
# A manifest's own hash, by its name in it.
SELF = "sha256"

NOT_THERE = "there is no such folder"
CUT_OFF = "its save was cut off"
UNKNOWN = f"it has no {MANIFEST}: an earlier version made it, or another program"

_HASH = re.compile("[0-9a-f]{64}")


def begin_saving(folder: Path) -> None:
    """Mark a folder as one that is being saved; until it has a manifest it counts for nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    # In the place of a mark that a save before left, which says as much or less.
    with suppress(FileNotFoundError):
        (folder / MANIFEST).replace(folder / SAVING)
    (folder / SAVING).touch()


def write_manifest(
    folder: Path, facts: Mapping[str, Any], names: Iterable[str] | None = None
) -> None:
    """Make a folder complete: its files are brought to the disk, hashed and named.

    Args:
        folder: in which everything else is there.
        facts: what the manifest says besides; of JSON's kinds.
        names: files, relative to the folder; all that it holds by default.

    Raises:
        OSError: something cannot be read or written.
    """
    chosen = files_in(folder) if names is None else names
    files = {}
    for name in sorted(chosen):
        synchronize(folder / name)
        files[name] = {"size": (folder / name).stat().st_size, "sha256": _hash(folder / name)}
    for inner in sorted({(folder / name).parent for name in files} - {folder}):
        synchronize(inner)
    with written_whole(folder / MANIFEST) as file:
        file.write_text(manifest_text({**facts, "files": files}))
    (folder / SAVING).unlink(missing_ok=True)


@contextmanager
def saved_into(
    folder: Path, facts: Callable[[], Mapping[str, Any]], leave_out: re.Pattern[str]
) -> Iterator[None]:
    """Give what the block writes into a folder that holds other things too a manifest.

    Weights and adapters that an earlier manifest names and the block does not write are deleted: an
    adapter beside the weights that took its place would be loaded instead of them.

    Args:
        folder: of which a manifest that is there is replaced.
        facts: asked when everything is there.
        leave_out: names of folders that hold none of it.
    """
    begin_saving(folder)
    begun = (folder / SAVING).stat().st_mtime_ns
    before = _as_they_are(folder, leave_out)
    yield
    after = _as_they_are(folder, leave_out)
    known = _named_before(folder)
    same = {name for name in after if after[name] == before.get(name)}
    # What is as young as the mark may have been written anew within one tick of the clock.
    replaced = {
        name
        for name in same & known
        if after[name][-1] < begun and STUDENT.fullmatch(PurePosixPath(name).name)
    }
    _delete(folder, replaced)
    synchronize(folder)
    write_manifest(folder, facts(), after.keys() - replaced - (same - known))


def _named_before(folder: Path) -> set[str]:
    """What the manifest names that a folder had before it was marked."""
    with suppress(ValueError):
        return set((read_manifest(folder, SAVING) or {"files": ()})["files"])
    return set()


def _as_they_are(folder: Path, leave_out: re.Pattern[str]) -> dict[str, tuple[int, int, int]]:
    """A folder's files, and by what one sees that they were written anew."""
    found = {}
    for name in files_in(folder, leave_out):
        status = (folder / name).stat()
        found[name] = status.st_ino, status.st_size, status.st_mtime_ns
    return found


def manifest_text(content: Mapping[str, Any]) -> str:
    """A manifest, with the format and the hash of what it says."""
    # As it is read again.
    plain = json.loads(json.dumps({"format": FORMAT, **content}, default=str))
    return json.dumps({**plain, SELF: content_hash(plain)}, indent=2) + "\n"


def read_manifest(folder: Path, name: str = MANIFEST) -> dict[str, Any] | None:
    """What `write_manifest` wrote, None where there is nothing.

    Args:
        folder: of a checkpoint or a model.
        name: of the file in it.

    Raises:
        ValueError: it is damaged, or of a later format.
    """
    path = folder / name
    try:
        found = parse_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"its {MANIFEST} is damaged") from error
    if isinstance(found, dict) and _whole(found.get("format")) and found["format"] > FORMAT:
        raise ValueError(f"its {MANIFEST} has format {found['format']}, of a later version")
    if not _is_manifest(found) or found.pop(SELF, None) != content_hash(found):
        raise ValueError(f"its {MANIFEST} is damaged")
    return found


def problem(folder: Path, *, contents: bool = True) -> str | None:
    """Why a folder is not what was saved in it, None where it is, whatever its card says.

    Args:
        folder: of a checkpoint or a model.
        contents: whether every byte is read; otherwise names and sizes alone are compared.

    Returns:
        The end of a sentence. `UNKNOWN` where nothing says what the folder should hold.
    """
    if not folder.is_dir():
        return NOT_THERE
    try:
        manifest = read_manifest(folder)
    except ValueError as error:
        return str(error)
    if manifest is None:
        return CUT_OFF if (folder / SAVING).exists() else UNKNOWN
    for name, entry in manifest["files"].items():
        if name == CARD:
            continue
        try:
            if (found := _difference(folder / name, entry, contents)) is not None:
                return f"its {escaped(name)} {found}"
        except OSError as error:
            return f"its {escaped(name)} cannot be read ({error.strerror})"
    return None


def _difference(file: Path, entry: Mapping[str, Any], contents: bool) -> str | None:
    if not file.is_file():
        return "is missing"
    size = file.stat().st_size
    if size != entry["size"]:
        return f"has {size:,} bytes in the place of {entry['size']:,}"
    if contents and _hash(file) != entry["sha256"]:
        return "has been altered since it was saved"
    return None


def files_in(folder: Path, leave_out: re.Pattern[str] | None = None) -> list[str]:
    """The files of a folder and those below, relative to it, with / between their parts.

    Args:
        folder: of which its own manifest and marks of saving are left out.
        leave_out: names of folders that are not looked into.
    """
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [n for n in folders if leave_out is None or not leave_out.fullmatch(n)]
        found += [Path(place, name).relative_to(folder).as_posix() for name in names]
    return [name for name in found if name not in (MANIFEST, SAVING)]


def delete_named(folder: Path) -> None:
    """Delete what a folder's manifest names, and the manifest; folders that this empties too.

    Raises:
        ValueError: the manifest is damaged.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return
    # What is left of it, should this be cut off, is no complete folder.
    begin_saving(folder)
    _delete(folder, manifest["files"])
    (folder / SAVING).unlink()


def _delete(folder: Path, names: Collection[str]) -> None:
    """Delete files of a folder, and folders in it that this empties."""
    root = folder.resolve()
    for name in names:
        file = folder / name
        # A link may have taken the place of a folder.
        if file.parent.resolve().is_relative_to(root):
            file.unlink(missing_ok=True)
    emptied = {above for name in names for above in PurePosixPath(name).parents}
    for inner in sorted(map(str, emptied - {PurePosixPath(".")}), reverse=True):
        with suppress(OSError):
            (folder / inner).rmdir()


def content_hash(content: Mapping[str, Any]) -> str:
    """A hash of settings and the like, whatever their order."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_manifest(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and _whole(found.get("format"))
        and all(_whole(found.get(name, 0)) for name in ("step", "start", "processes"))
        and all(isinstance(found.get(name, {}), dict) for name in ("settings", "facts"))
        and isinstance(found.get("facts", {}).get("identity", {}), dict)
        and isinstance(found.get("facts", {}).get("changed", []), list)
        and isinstance(files := found.get("files"), dict)
        and all(map(_is_entry, files.items()))
    )


def _is_entry(item: tuple[str, Any]) -> bool:
    name, entry = item
    path = PurePosixPath(name)
    inside = name not in ("", ".") and not path.is_absolute() and ".." not in path.parts
    return (
        inside
        and "\0" not in name
        and isinstance(entry, dict)
        and _whole(entry.get("size"))
        and isinstance(entry.get("sha256"), str)
        and _HASH.fullmatch(entry["sha256"]) is not None
    )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _hash(file: Path) -> str:
    status = file.stat()
    return _hash_of(str(file), status.st_ino, status.st_size, status.st_mtime_ns)


# A command looks at a checkpoint before it loads models, and again when it goes on from it.
@lru_cache(maxsize=4096)
def _hash_of(path: str, *_as_it_was: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
