"""Find, load and identify the model to be evaluated."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

# Elements of each tensor that go into a fingerprint.
FINGERPRINT_ELEMENTS = 256


def load_model(
    source: str | Path, *, revision: str | None = None, dtype: str = "auto"
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load a model with its tokenizer. Code from a model repository is never run.

    Args:
        source: a path or a hub id, of a model or of an adapter.
        revision: of a hub id.
        dtype: `"auto"` is the checkpoint's own.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(source, revision=revision, dtype=dtype)
    tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
    return model.to(device), tokenizer


def fingerprint(model: Any) -> str:
    """A hash that tells apart two models or two states of training, without reading every weight.

    Names, shapes, dtypes and evenly spaced elements of every tensor go in: a training step moves
    all of a tensor, so a few hundred elements show it.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().reshape(-1)
        step = max(1, flat.numel() // FINGERPRINT_ELEMENTS)
        kept = flat[::step].to("cpu", torch.float64)
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(kept.numpy().tobytes())
    return digest.hexdigest()[:16]
