"""Models and tokenizers small enough to be built in a test: random weights, no network."""

import functools

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoModelForCausalLM,
    FalconH1Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    Lfm2Config,
    LlamaConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3NextConfig,
)
from trl.chat_template_utils import qwen3_chat_template

VOCAB = 260
PAD, EOS = 256, 257
_COMMON = {
    "vocab_size": VOCAB,
    "pad_token_id": PAD,
    "bos_token_id": EOS,
    "eos_token_id": EOS,
    "max_position_embeddings": 256,
    "num_hidden_layers": 3,
    "hidden_size": 32,
    "num_attention_heads": 4,
}
GATED = {**_COMMON, "intermediate_size": 48, "num_key_value_heads": 2}


def config(architecture: str, **overrides: object) -> PreTrainedConfig:
    options = {
        "llama": lambda **o: LlamaConfig(**{**GATED, **o}),
        "qwen2": lambda **o: Qwen2Config(**{**GATED, **o}),
        "qwen3": lambda **o: Qwen3Config(**{**GATED, "head_dim": 8, **o}),
        "gemma3": lambda **o: Gemma3TextConfig(
            **{**GATED, "head_dim": 8, "sliding_window": 16, **o}
        ),
        "phi3": lambda **o: Phi3Config(**{**GATED, **o}),
        "gpt2": lambda **o: GPT2Config(
            **{**_COMMON, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, **o}
        ),
        "gpt_neox": lambda **o: GPTNeoXConfig(**{**_COMMON, "intermediate_size": 48, **o}),
        "opt": lambda **o: OPTConfig(
            **{
                **_COMMON,
                "ffn_dim": 48,
                "word_embed_proj_dim": 32,
                "do_layer_norm_before": True,
                "dropout": 0.0,
                **o,
            }
        ),
        "lfm2": lambda **o: Lfm2Config(**{**GATED, "full_attn_idxs": [1], **o}),
        "falcon_h1": lambda **o: FalconH1Config(
            **{
                **GATED,
                "head_dim": 8,
                "mamba_d_ssm": 64,
                "mamba_n_heads": 8,
                "mamba_d_head": 8,
                "mamba_d_state": 8,
                **o,
            }
        ),
        "qwen3_next": lambda **o: Qwen3NextConfig(
            **{
                **GATED,
                "head_dim": 8,
                "layer_types": ["linear_attention", "full_attention", "linear_attention"],
                "linear_num_value_heads": 4,
                "linear_num_key_heads": 2,
                "linear_key_head_dim": 8,
                "linear_value_head_dim": 8,
                "moe_intermediate_size": 16,
                "shared_expert_intermediate_size": 16,
                "num_experts": 4,
                "num_experts_per_tok": 2,
                **o,
            }
        ),
    }
    return options[architecture](**overrides)


ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3", "gpt2", "gpt_neox", "opt", "phi3")
# With blocks, or parts of blocks, that keep a recurrent state in place of keys and values.
HYBRIDS = ("lfm2", "falcon_h1", "qwen3_next")


def model(architecture: str = "llama", seed: int = 0, **overrides: object) -> PreTrainedModel:
    """A causal language model in eval mode; the seed decides its weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = AutoModelForCausalLM.from_config(config(architecture, **overrides))
    return made.eval()


def reading(
    reads_with: PreTrainedTokenizerFast, architecture: str = "llama", **options: object
) -> PreTrainedModel:
    """A model of a tokenizer's vocabulary that stops where it does."""
    special = {"eos_token_id": reads_with.eos_token_id, "pad_token_id": reads_with.pad_token_id}
    own = {"vocab_size": len(reads_with), "bos_token_id": None, **special}
    return model(architecture, **{**own, **options})


@functools.cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens: ids 0..255, then padding, end and two special tokens."""
    alphabet = sorted(ByteLevel.alphabet())
    specials = ["<pad>", "<eos>", "<system>", "<user>"]
    vocab = {token: index for index, token in enumerate([*alphabet, *specials])}
    backend = Tokenizer(BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.decoder = ByteLevelDecoder()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="<eos>",
        additional_special_tokens=["<system>", "<user>"],
        padding_side="left",
    )


def batch(lengths: tuple[int, ...], width: int | None = None, seed: int = 0):
    """Left-padded token ids and their mask, [B, T]."""
    generator = torch.Generator().manual_seed(seed)
    width = width or max(lengths)
    ids = torch.full((len(lengths), width), PAD)
    mask = torch.zeros(len(lengths), width, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, width - length :] = torch.randint(0, 256, (length,), generator=generator)
        mask[row, width - length :] = 1
    return ids, mask


def calling_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, and Qwen3's chat template, which knows tools."""
    plain = tokenizer()
    found = type(plain)(
        tokenizer_object=plain.backend_tokenizer,
        eos_token="<|im_end|>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>"],
    )
    found.chat_template = qwen3_chat_template
    return found
