"""A trained student as a plain Transformers folder.

Training leaves traces in what it saves: `use_cache` off, padding on the left for rollouts, the
generation settings of the trainer. They are put back to what the student began with, but for the
tokens at which it was trained to stop. What only training reads, its settings and the optimizer
among it, stays behind.
"""

import shutil
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoProcessor, GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from oprd.extras import require
from oprd.models.adapters import merge_adapter
from oprd.models.load import ADAPTER, load_model
from oprd.runs.atomic import give_usual_mode

# What a folder of a whole model is copied from, and of an adapter.
WHOLE = ("config.json", GENERATION_CONFIG_NAME, "model*.safetensors", "*.safetensors.index.json")
OF_ADAPTER = (ADAPTER, GENERATION_CONFIG_NAME, "adapter_model*.safetensors")
SIDES = ("padding_side", "truncation_side")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter."""
    return (folder / ADAPTER).is_file()


def export_model(
    source: Path,
    output: Path,
    *,
    original: str | None,
    revision: str | None = None,
    base: str | None = None,
    merge: bool = True,
) -> list[str]:
    """Write a student for others.

    Args:
        source: a folder with the trained model or adapter, and its tokenizer.
        output: an empty folder.
        original: path or hub id of what was trained; None where it was built in memory.
        revision: of a hub id.
        base: what an adapter is merged into, by default what it names itself.
        merge: whether an adapter is merged into its base.

    Returns:
        what could not be put back as it was, in sentences.

    Raises:
        OSError: a model cannot be read.
        ImportError: an adapter is to be merged and peft is not installed.
        ValueError: it cannot be merged, see `oprd.models.adapters.merge_adapter`.
    """
    if not is_adapter(source):
        _copy_or_load(source, output, WHOLE)
    elif merge:
        require("peft", "peft", "merging an adapter")
        model, _ = load_model(str(source), base_model=base, revision=revision)
        _save(merge_adapter(model, str(source), "export it with --no-merge"), output)
    else:
        _copy_or_load(source, output, OF_ADAPTER)
    return _put_back(source, output, original, revision)


def _copy_or_load(source: Path, output: Path, patterns: tuple[str, ...]) -> None:
    """Copy weights that are safetensors as they are; others go through Transformers."""
    files = [file for pattern in patterns for file in sorted(source.glob(pattern))]
    if any(file.suffix == ".safetensors" for file in files):
        for file in files:
            # Modes are the umask's, not those of a library.
            shutil.copyfile(file, output / file.name)
        return
    model, _ = load_model(str(source))
    _save(model, output)


def _save(model: Any, output: Path) -> None:
    model.save_pretrained(output)
    give_usual_mode(*output.glob("*.safetensors"))


def _put_back(source: Path, output: Path, original: str | None, revision: str | None) -> list[str]:
    reader = _read(AutoProcessor, str(source), None)
    first = None if original is None else _read(AutoProcessor, original, revision)
    notes = []
    if reader is None:
        notes.append("There is no tokenizer beside the student.")
    else:
        if first is not None:
            for part, other in ((reader, first), *_tokenizers(reader, first)):
                for side in SIDES:
                    if hasattr(other, side):
                        setattr(part, side, getattr(other, side))
        reader.save_pretrained(output)
    _put_generation_back(source, output, original, revision)
    if (output / ADAPTER).is_file():
        return notes
    began = None if original is None else _read(AutoConfig, original, revision)
    if began is None:
        return [
            *notes,
            "What the student began with is not at hand, so that use_cache, the padding side and "
            "the generation settings are those of the training.",
        ]
    config = AutoConfig.from_pretrained(output)
    for part, other in ((config, began), (config.get_text_config(), began.get_text_config())):
        if hasattr(other, "use_cache"):
            part.use_cache = other.use_cache
    config.save_pretrained(output)
    return notes


def _put_generation_back(
    source: Path, output: Path, original: str | None, revision: str | None
) -> None:
    """Let an export generate as the student did when it began, and stop where it was trained to."""
    trained = _read(GenerationConfig, str(source), None)
    began = None if original is None else _read(GenerationConfig, original, revision)
    # An adapter without settings of its own leaves them to its base.
    if began is None or (trained is None and is_adapter(output)):
        return
    if trained is not None:
        began.eos_token_id = trained.eos_token_id
    # Not save_pretrained, which refuses what a model may have been loaded with.
    began.to_json_file(output / GENERATION_CONFIG_NAME)


def _tokenizers(reader: Any, first: Any) -> list[tuple[Any, Any]]:
    """The tokenizers within two processors, where they are such."""
    both = getattr(reader, "tokenizer", None), getattr(first, "tokenizer", None)
    return [both] if None not in both else []


def _read(kind: Any, name: str, revision: str | None) -> Any:
    """A configuration or a processor, None where there is none. Code beside it is never run."""
    options: dict[str, Any] = {} if revision is None else {"revision": revision}
    if kind is not GenerationConfig:
        options["trust_remote_code"] = False
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError):
        return None
