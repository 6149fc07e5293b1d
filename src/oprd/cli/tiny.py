"""Models and a tokenizer made in memory, to check an installation without a network."""

from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

PAD, EOS = "<pad>", "<eos>"
VOCABULARY = [*sorted(ByteLevel.alphabet()), PAD, EOS]
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3_text", "phi3", "gpt2", "gpt_neox", "opt")


def tiny_model(architecture: str, seed: int = 0) -> PreTrainedModel:
    """A causal language model of three narrow blocks with random weights."""
    options: dict[str, Any] = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "pad_token_id": VOCABULARY.index(PAD),
        "bos_token_id": VOCABULARY.index(EOS),
        "eos_token_id": VOCABULARY.index(EOS),
    }
    if architecture == "opt":
        options |= {"ffn_dim": 64, "word_embed_proj_dim": 32}
    config = AutoConfig.for_model(architecture, **options)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).eval()


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """One token a byte, padded on the left."""
    vocabulary = {token: index for index, token in enumerate(VOCABULARY)}
    backend = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.decoder = ByteLevelDecoder()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, eos_token=EOS, padding_side="left"
    )
