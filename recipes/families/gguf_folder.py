"""A GGUF file and a tokenizer's folder as an ordinary Transformers folder, in float32.

    python recipes/families/gguf_folder.py model.gguf tokenizer/ --output gemma

Transformers reads GGUF with the package `gguf`. The tokenizer is that of a `tokenizer.json`: to
make one of a GGUF file's 262,144 tokens takes very long.
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    read = AutoModelForCausalLM.from_pretrained(
        options.gguf.parent, gguf_file=options.gguf.name, dtype=torch.float32
    )
    config = read.config
    # What came quantized Transformers refuses to save or train.
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(options.output)
    AutoTokenizer.from_pretrained(options.tokenizer).save_pretrained(options.output)


if __name__ == "__main__":
    main()
