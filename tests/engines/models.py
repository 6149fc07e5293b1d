"""Tiny models whose heads are of a width that vLLM's attention on a CPU takes."""

import json
from pathlib import Path
from typing import Any

import torch

from tests import tiny

WIDE = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 96,
}


def save(folder: Path, seed: int = 0, *, ends: Any = None, **options: Any) -> Path:
    """A model folder with a tokenizer; `ends` are the tokens at which the model stops."""
    made = tiny.model("llama", seed=seed, **{**WIDE, **options})
    if ends is not None:
        made.generation_config.eos_token_id = ends
    made.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


TEXTS = [f"{'what is ' * (n % 3)}{n} + {n * 7 % 11}?" for n in range(8)]
PROMPTS = [list(tiny.tokenizer()(text)["input_ids"]) for text in TEXTS]
# One that holds a good part of the vocabulary, which a repetition penalty then weighs.
LONG = list(range(0, 200, 2))


def save_prompts(folder: Path) -> Path:
    """A data set of `TEXTS`."""
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS))
    return file


def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    """The likeliest tokens after a prompt, without an end."""
    ids = torch.tensor([prompt])
    for _ in range(count):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids[0, len(prompt) :].tolist()


def ends_in(model: Any) -> tuple[int, int]:
    """Tokens at which one of its responses stops at once, and another in its middle."""
    at_once, later = greedy(model, PROMPTS[0], 1)[0], greedy(model, PROMPTS[1], 8)
    # One that did not come before.
    new = (t for n, t in enumerate(later) if n > 1 and t not in [at_once, *later[:n]])
    return at_once, next(new)
