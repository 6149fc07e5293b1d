"""Every causal language model of Transformers at a size that fits a test, with random weights."""

from dataclasses import fields
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedConfig,
    PreTrainedModel,
)

WIDTH, HEADS, HEAD, LAYERS, INNER, EXPERTS, RANK = 32, 4, 8, 4, 48, 4, 16
MIXED = ["sliding_attention", "full_attention"] * 2
ROPE = {"rope_type": "default", "rope_theta": 1e4}
MROPE = {"rope_parameters": {**ROPE, "mrope_section": [2, 1, 1]}}
KOSMOS = {"layers": LAYERS, "embed_dim": WIDTH, "attention_heads": HEADS, "ffn_dim": INNER}
# Which their checkpoints have, and their configurations lack by themselves.
VISION_START = {"vision_start_token_id": 3}
# By the names that configurations have for them.
SIZES: dict[str, Any] = {
    "vocab_size": 260,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 128),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "emb_dim", "dim_model"), WIDTH),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), LAYERS),
    **dict.fromkeys(("num_encoder_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), HEADS),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), HEADS),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads"), HEADS),
    "num_key_value_heads": 2,
    **dict.fromkeys(("head_dim", "v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim"), HEAD),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner"), INNER),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "dim_ff"), INNER),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), RANK),
    **dict.fromkeys(("expert_ffn_hidden_size", "shared_intermediate_size"), RANK),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), EXPERTS),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group", "mamba_n_groups", "n_groups"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank"), RANK),
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), HEAD),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_headdim"), HEAD),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "state_size"), HEAD),
    "mamba_d_ssm": 64,
    "index_n_heads": 2,
    "index_head_dim": RANK,
    **dict.fromkeys(("linear_head_dim", "rotary_dim"), HEAD),
    "linear_num_heads": HEADS,
    **dict.fromkeys(("vocab_size_per_layer_input", "ngram_vocab_size_base"), 260),
    "hidden_size_per_layer_input": RANK,
    "attention_chunk_size": 6,
    "encoder_hash_byte_group_vocab": 100,
    "depth": 2,
}
# What small numbers alone do not make consistent.
OWN: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE}},
    "dots1": {"n_shared_experts": 1},
    "gemma3n_text": {"num_kv_shared_layers": 2, "layer_types": MIXED, "laurel_rank": HEAD},
    **dict.fromkeys(("glm4v_text", "glm_ocr_text", "paddleocr_vl_text"), MROPE),
    **dict.fromkeys(("qwen2_vl_text", "qwen2_5_vl_text", "qwen2_5_omni_text"), MROPE),
    "glm4v_moe_text": {"rope_parameters": {**ROPE, "mrope_section": [1, 1, 0]}},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "llama4_vision_model": {
        "image_size": 28,
        "intermediate_size": 4 * WIDTH,
        **dict.fromkeys(("projector_input_dim", "projector_output_dim"), WIDTH),
        "vision_output_dim": WIDTH,
    },
    "mamba2": {"num_heads": 8},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": HEAD,
        "indexer_budget": 64,
        "indexer_compress_ratio": 2,
    },
    **dict.fromkeys(("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker"), VISION_START),
    **dict.fromkeys(("kosmos_2_text_model", "kosmos_2_5_text_model"), KOSMOS),
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"] * 2, "n_mamba_heads": 8},
    "step3p7_text": {"sliding_window": 16},
    "zaya": {"num_experts_per_tok": 1},
}


def config(model_type: str) -> PreTrainedConfig:
    """The configuration of a kind of model with small numbers in the place of its own."""
    return _shrunk(CONFIG_MAPPING[model_type])


def _shrunk(kind: type[PreTrainedConfig]) -> PreTrainedConfig:
    default = kind()
    parts = {
        name: _shrunk(type(part)).to_dict()
        for name in getattr(kind, "sub_configs", {})
        if isinstance(part := getattr(default, name, None), PreTrainedConfig)
    }
    taken = {field.name for field in fields(kind)}
    sizes = {name: size for name, size in SIZES.items() if name in taken}
    if "kv_lora_rank" in taken:
        sizes["num_key_value_heads"] = HEADS
    ropes = getattr(default, "rope_parameters", None) or {}
    if "mrope_section" in ropes:
        sizes["rope_parameters"] = {**ropes, "mrope_section": [2, 1, 1]}
    return kind(**{**sizes, **parts, **OWN.get(kind.model_type, {})})


def model(model_type: str, *, pictures: bool = False, seed: int = 0) -> PreTrainedModel:
    """A model in eval mode; the seed decides its weights.

    Args:
        model_type: as in Transformers' mappings.
        pictures: whether it is the one that reads pictures too.
        seed: see above.
    """
    kind = AutoModelForImageTextToText if pictures else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind.from_config(config(model_type)).float().eval()
