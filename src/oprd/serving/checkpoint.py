"""A checkpoint of which a run reads some tensors, and a model without the others.

A teacher on a server has its blocks there. Here are its configuration, and what a run computes with
itself: the final norm, and the LM head where an output loss asks for it.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.utils.hub import cached_file

from oprd.core.capture import blocks, decoder, hidden_size
from oprd.core.output.head import LMHead
from oprd.hub import only_cached
from oprd.models.heads import lm_head
from oprd.models.load import fingerprint_of
from oprd.text import parse_json

LOAD_HERE = (
    "load this teacher here, with teacher_source='path' and without teacher_server_url and "
    "teacher_server_folder"
)
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class Checkpoint:
    """Tensors by name, each read when it is asked for.

    Args:
        source: a folder or a hub id.
        revision: of a hub id.

    Raises:
        OSError: it holds no weights as safetensors.
    """

    def __init__(self, source: str, revision: str | None = None) -> None:
        self.source, self._revision = source, revision
        index = self._file(INDEX, needed=False)
        if index is None:
            whole = self._file(WHOLE, needed=False)
            if whole is None:
                raise OSError(
                    f"{source!r} holds neither {WHOLE} nor {INDEX}: a teacher on a server needs "
                    "the final norm of its checkpoint here, as safetensors."
                )
            with safe_open(whole, "pt") as file:
                self._files = dict.fromkeys(file.keys(), WHOLE)
        else:
            self._files = dict(parse_json(Path(index).read_bytes())["weight_map"])

    def tensor(self, *names: str) -> Tensor | None:
        """The tensor of a parameter by any of its names; None where there is none.

        Raises:
            OSError: its file cannot be read.
        """
        for name in names:
            # A checkpoint of a base model leaves out what its causal language model calls it.
            found = [k for k in self._files if k == name or name.endswith(f".{k}")]
            if len(found) == 1:
                path = self._file(self._files[found[0]])
                try:
                    with safe_open(str(path), "pt") as file:
                        return file.get_tensor(found[0])
                except SafetensorError as error:
                    raise OSError(f"{path} cannot be read: {error}") from error
        return None

    def fingerprint(self, model: nn.Module) -> str | None:
        """That of the same model when it is loaded; None where not all of it is in a folder."""
        if not Path(self.source).is_dir():
            return None
        # Files are mapped: of each tensor a few pages are read.
        state = model.state_dict(keep_vars=True)
        found = {name: self.tensor(name, *_names(model, state[name])) for name in state}
        known = {name: tensor for name, tensor in found.items() if tensor is not None}
        return fingerprint_of(known) if len(known) == len(found) else None

    def _file(self, name: str, *, needed: bool = True) -> str | None:
        return cached_file(
            self.source,
            name,
            revision=self._revision,
            local_files_only=only_cached(self.source),
            _raise_exceptions_for_missing_entries=needed,
        )


def skeleton(source: str, revision: str | None = None) -> PreTrainedModel:
    """A causal language model in eval mode, frozen, without weights.

    Args:
        source: a folder or a hub id.
        revision: of a hub id.

    Raises:
        OSError: there is no configuration.
        ValueError: it is of no causal language model, or wants code of its own.
    """
    place: dict[str, Any] = {"revision": revision, "local_files_only": only_cached(source)}
    config = AutoConfig.from_pretrained(source, trust_remote_code=False, **place)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    # Without such a file it is what follows from the configuration.
    with suppress(OSError):
        model.generation_config = GenerationConfig.from_pretrained(source, **place)
    return model.eval().requires_grad_(False)


def weights_of(module: nn.Module, model: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The tensors of a part of a skeleton, by its own names.

    Raises:
        OSError: they are not in the checkpoint.
    """
    found = {}
    for name, parameter in module.named_parameters():
        names = _names(model, parameter)
        tensor = checkpoint.tensor(*names)
        if tensor is None or tensor.shape != parameter.shape:
            why = "is missing" if tensor is None else f"is {tuple(tensor.shape)}"
            raise OSError(
                f"{names[0]} {why} in {checkpoint.source!r}, and the teacher's is "
                f"{tuple(parameter.shape)}: {LOAD_HERE}."
            )
        found[name] = tensor
    return found


def head_of(model: nn.Module, checkpoint: Checkpoint) -> LMHead:
    """A skeleton's LM head with the weights of a checkpoint, which are read where they are used.

    Raises:
        OSError: they are not in the checkpoint.
        ValueError: see `lm_head`.
    """
    head, output = lm_head(model), cast(Any, model).get_output_embeddings()
    found = weights_of(output, model, checkpoint)
    own = LMHead(found["weight"], found.get("bias"), head.scale, head.softcap)
    return own.cut(head.vocab_size)


def final_norm(model: nn.Module) -> nn.Module:
    """What stands between the last block and the last hidden state.

    Raises:
        ValueError: that is not one norm.
    """
    stack, width = decoder(model), hidden_size(model)
    found = [
        child for child in stack.children() if child is not blocks(model) and _is_norm(child, width)
    ]
    if len(found) != 1:
        raise ValueError(
            f"a teacher on a server needs one final norm, and {type(stack).__name__} has "
            f"{len(found)}: {LOAD_HERE}."
        )
    return found[0]


def _is_norm(module: nn.Module, width: int) -> bool:
    shapes = {tuple(parameter.shape) for parameter in module.parameters()}
    return "norm" in type(module).__name__.lower() and shapes == {(width,)}


def _names(model: nn.Module, parameter: Tensor) -> list[str]:
    """Of which a checkpoint holds one where weights are tied."""
    named = model.named_parameters(remove_duplicate=False)
    return [name for name, other in named if other is parameter]
