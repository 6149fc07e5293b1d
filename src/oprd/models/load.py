"""Find, load and identify the model to be evaluated."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import GENERATION_CONFIG_NAME
from transformers.utils.hub import cached_file

from oprd.extras import require
from oprd.hub import only_cached, warn_of_waiting
from oprd.models.generate import Engine, TransformersEngine
from oprd.names import locate, nowhere
from oprd.runs.checkpoints import newest_checkpoint
from oprd.runs.manifest import UNKNOWN, problem
from oprd.text import parse_json

# Elements of each tensor that go into a fingerprint.
FINGERPRINT_ELEMENTS = 256
DTYPES = ("auto", "float32", "bfloat16", "float16")
ADAPTER, TOKENIZER = "adapter_config.json", "tokenizer_config.json"
CONFIGS = (ADAPTER, "config.json")
# Options of loading that say where in a repository a model stands.
ELSEWHERE = frozenset({"subfolder", "gguf_file"})
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")

logger = logging.getLogger(__name__)


def resolve_model(source: str, what: str = "model", *, contents: bool = True) -> str:
    """The folder to load for a path, or the hub id itself.

    A run folder without a whole model of its own stands for its newest complete checkpoint.

    Args:
        source: a path or a hub id.
        what: its part in what is to be done, for messages: "student", "teacher".
        contents: whether every byte of a folder with a manifest is compared with it; otherwise
            names and sizes are.

    Raises:
        FileNotFoundError: the folder holds neither a model, an adapter nor a complete checkpoint.
        ValueError: the name can be neither a path nor a hub id, or the folder does not hold what
            was saved in it.
    """
    path = locate(source, what)
    if path is None:
        return source
    found = UNKNOWN
    if _holds_model(path):
        found = problem(path, contents=contents) if path.is_dir() else None
        if found in (None, UNKNOWN):
            return str(path)
    newest = newest_checkpoint(path, fits=_holds_model, contents=contents)
    if found != UNKNOWN and newest is None:
        raise ValueError(f"{what} {source!r} is damaged: {found}.")
    if newest is None:
        raise FileNotFoundError(
            f"{what} {source!r} holds no config.json or adapter_config.json with weights, and no "
            "complete checkpoint."
        )
    if found != UNKNOWN:
        logger.warning("the model in %r is passed over for %s: %s.", source, newest.name, found)
    return str(newest)


def find_model(
    source: str, what: str, revision: str | None = None, base_model: str | None = None
) -> str:
    """The same, after a look whether it is there, and the base of an adapter too.

    Nothing but small files is read, so that a mistyped name is found before anything slow.

    Args:
        source: a path or a hub id.
        what: its part in what is to be done.
        revision: of a hub id.
        base_model: of an adapter, instead of what it names itself.

    Raises:
        FileNotFoundError: it is neither here nor on the hub.
        ValueError: the name can be neither a path nor a hub id.
    """
    folder = resolve_model(source, what, contents=False)
    if not Path(folder).exists():
        ask_hub(folder, what, revision)
    elif (Path(folder) / ADAPTER).is_file() and (base := base_model or base_of(folder)):
        find_model(base, f"{what}'s base")
    return folder


def check_named(name: str, what: str, options: Mapping[str, Any]) -> None:
    """Refuse the name of nothing, before a library asks for it again and again.

    What is here is left to whoever loads it, as is what options look for elsewhere in a repository.

    Args:
        name: a path or a hub id.
        what: its part in what is to be done.
        options: of loading.

    Raises:
        FileNotFoundError: it is neither here nor on the hub.
        ValueError: the name can be neither a path nor a hub id.
    """
    if locate(name, what) is not None:
        return
    if not ELSEWHERE & options.keys():
        ask_hub(name, what, options.get("revision"))
    warn_of_waiting(name)


def load_tokenizer(
    source: str, *, base_model: str | None = None, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model or an adapter, which may leave it to its base.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    place = source
    if (Path(source) / ADAPTER).is_file() and not (Path(source) / TOKENIZER).is_file():
        place = base_model or base_of(source)
    try:
        return AutoTokenizer.from_pretrained(
            place, revision=revision, trust_remote_code=False, local_files_only=only_cached(place)
        )
    except (OSError, ValueError) as error:
        raise OSError(f"the tokenizer of {source!r} cannot be loaded: {error}") from error


def load_model(
    source: str, *, base_model: str | None = None, revision: str | None = None, dtype: str = "auto"
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load a model with its tokenizer. Code from a model repository is never run.

    An adapter generates as its base does, or as is written beside it in its folder.

    Args:
        source: a path or a hub id, of a model or of an adapter.
        base_model: what to load an adapter on, instead of what it names itself.
        revision: of a hub id; for an adapter in a folder, of its base.
        dtype: `"auto"` is the checkpoint's own.

    Raises:
        ImportError: an adapter is to be loaded and peft is not installed.
        ValueError: there is no such dtype.
        OSError: the model cannot be found or read.
    """
    model = load_weights(source, base_model, revision, dtype)
    return model, load_tokenizer(source, base_model=base_model, revision=revision)


def load_weights(source: str, base_model: str | None, revision: str | None, dtype: str) -> Any:
    """The model alone; see `load_model`."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    peft, place = None, source
    if (Path(source) / ADAPTER).is_file():
        peft = cast(Any, require("peft", "peft", "an adapter"))
        place = base_model or base_of(source)
    here = {"local_files_only": only_cached(place)}
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            place,
            revision=revision,
            dtype=dtype,
            trust_remote_code=False,
            # Transformers looks for an adapter there, too.
            adapter_kwargs=here,
            **here,
        )
        if peft is not None:
            if (Path(source) / GENERATION_CONFIG_NAME).is_file():
                model.generation_config = GenerationConfig.from_pretrained(source)
            model = peft.PeftModel.from_pretrained(model, source)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        base = f" on its base {place!r}" if place != source else ""
        raise OSError(f"model {source!r} cannot be loaded{base}: {error}") from error
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def open_engine(
    source: str,
    *,
    engine: str = "transformers",
    base_model: str | None = None,
    revision: str | None = None,
    dtype: str = "auto",
    batch_size: int = 32,
) -> tuple[Engine, dict[str, str | None]]:
    """Load a model into an engine.

    Returns:
        The engine, and `model`, `path`, `revision` and `weights` for the record of an evaluation.

    Raises:
        ValueError: the engine is unknown, or cannot do what is asked.
        OSError: the model cannot be found or read.
        ImportError: the engine is not installed.
    """
    folder = resolve_model(source)
    if engine == "transformers":
        model, tokenizer = load_model(folder, base_model=base_model, revision=revision, dtype=dtype)
        identity = {**identify(model), "model": source, "path": folder}
        return TransformersEngine(model, tokenizer, batch_size), identity
    if engine == "vllm":
        from oprd.models.vllm_engine import VllmEngine

        if (Path(folder) / "adapter_config.json").is_file():
            raise ValueError("engine vllm evaluates whole models: merge the adapter first.")
        opened = VllmEngine(folder, revision=revision, dtype=dtype)
        weights = file_fingerprint(Path(folder)) if Path(folder).is_dir() else None
        identity = {"model": source, "path": folder, "revision": revision, "weights": weights}
        return opened, identity
    raise ValueError(f"engine must be 'transformers' or 'vllm', got {engine!r}.")


def identify(model: Any) -> dict[str, str | None]:
    """`model`, `revision` and `weights` of a model; None for weights that are not here."""
    name = model.config._name_or_path or type(model).__name__
    weights = None if any(p.is_meta for p in model.parameters()) else fingerprint(model)
    return {"model": name, "revision": revision(model), "weights": weights}


def revision(model: Any) -> str | None:
    """The commit that a model was loaded from, where its configuration says it."""
    return getattr(model.config, "_commit_hash", None)


def fingerprint(model: Any) -> str:
    """A hash that tells apart two models or two states of training, without reading every weight.

    Names, shapes and evenly spaced elements of every tensor go in: a training step moves all of a
    tensor, so a few hundred elements show it. They are rounded to bfloat16, so that it is the same
    model in whatever precision it was loaded; and so it is with an adapter that has not trained.
    """
    return fingerprint_of(_weights(model))


def fingerprint_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """The same of tensors by their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().reshape(-1)
        kept = flat[:: max(1, flat.numel() // FINGERPRINT_ELEMENTS)].to("cpu", torch.bfloat16)
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(kept.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def _weights(model: Any) -> dict[str, torch.Tensor]:
    """A model's tensors by name; those of its base alone where LoRA adds nothing yet."""
    state: dict[str, torch.Tensor] = model.state_dict()
    products = [tensor for name, tensor in state.items() if ".lora_B." in name]
    if not products or any(tensor.any() for tensor in products):
        return state
    return {
        name.removeprefix("base_model.model.").replace(".base_layer.", "."): tensor
        for name, tensor in state.items()
        if ".lora_" not in name
    }


def file_fingerprint(folder: Path) -> str:
    """The same for weights that only an engine holds: sizes, heads and tails of their files."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        size, piece = file.stat().st_size, 1 << 20
        with file.open("rb") as content:
            digest.update(f"{file.name} {size}".encode() + content.read(piece))
            content.seek(max(0, size - piece))
            digest.update(content.read())
    return digest.hexdigest()[:16]


def base_of(adapter: str) -> str:
    """The base that the adapter of a folder names, empty where it names none."""
    path = Path(adapter) / ADAPTER
    try:
        return str(parse_json(path.read_bytes()).get("base_model_name_or_path") or "")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: it holds no JSON object.") from error


def ask_hub(name: str, what: str, revision: str | None) -> None:
    """Refuse, with a FileNotFoundError, a hub id of which neither hub nor cache has a model."""
    problem: Exception | None = None
    unreachable = only_cached(name)
    for config in CONFIGS:
        try:
            # A hub that did not answer once would keep a person waiting again.
            if cached_file(name, config, revision=revision, local_files_only=unreachable):
                return
        except (OSError, ValueError) as error:
            problem = problem if problem and unreachable else error
            unreachable |= isinstance(error.__cause__, LocalEntryNotFoundError)
    raise nowhere(name, what, problem)


def _holds_model(folder: Path) -> bool:
    weights = (file for pattern in WEIGHTS for file in folder.glob(pattern))
    has_config = any((folder / name).is_file() for name in CONFIGS)
    return (has_config and any(file.stat().st_size for file in weights)) or any(
        # Which one of them is meant, and its config, is for the settings of loading to say.
        folder.glob("*.gguf")
    )
