"""Tiny random models of each causal type of transformers, and how each is read."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

# Sizes under the names that configurations have for them; 101 is the tiny tokenizer's vocabulary,
# and windows of 6 are exceeded by every text.
SIZES: dict[str, Any] = {
    **dict.fromkeys(["hidden_size", "n_embd", "d_model", "embedding_size", "lru_width"], 32),
    **dict.fromkeys(["attention_hidden_size", "word_embed_proj_dim"], 32),
    **dict.fromkeys(["num_hidden_layers", "n_layer", "n_layers", "num_layers"], 4),
    **dict.fromkeys(["decoder_layers", "num_attention_heads", "n_head", "n_heads"], 4),
    **dict.fromkeys(["num_heads", "decoder_attention_heads", "encoder_attention_heads"], 4),
    **dict.fromkeys(["num_key_value_heads", "num_experts_per_tok", "moe_topk", "top_k"], 2),
    **dict.fromkeys(["intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim"], 64),
    **dict.fromkeys(["moe_intermediate_size", "shared_expert_intermediate_size"], 32),
    **dict.fromkeys(["num_experts", "num_local_experts", "n_routed_experts"], 4),
    **dict.fromkeys(["n_group", "topk_group", "encoder_layers", "first_k_dense_replace"], 1),
    **dict.fromkeys(["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"], 256),
    **dict.fromkeys(["bos_token_id", "eos_token_id", "pad_token_id"], 0),
    **dict.fromkeys(["sliding_window", "attention_window_size", "local_attention"], 6),
    **dict.fromkeys(["attention_chunk_size", "window_size"], 6),
    **dict.fromkeys(["head_dim", "qk_rope_head_dim", "qk_nope_head_dim"], 8),
    **dict.fromkeys(["rotary_dim", "query_pre_attn_scalar", "attn_head_dim"], 8),
    **dict.fromkeys(["kv_lora_rank", "q_lora_rank", "mamba_d_head", "mamba_head_dim"], 16),
    **dict.fromkeys(["mamba_d_state", "state_size", "mamba_chunk_size", "chunk_size"], 8),
    **dict.fromkeys(["linear_key_head_dim", "linear_value_head_dim"], 8),
    **dict.fromkeys(["mamba_n_heads", "mamba_num_heads", "linear_num_value_heads"], 4),
    **dict.fromkeys(["mamba_expand", "linear_num_key_heads", "expert_layer_period"], 2),
    **dict.fromkeys(["mamba_n_groups", "n_groups", "n_mamba_heads", "expert_layer_offset"], 1),
    **dict.fromkeys(["attn_layer_period", "index_n_heads"], 2),
    **dict.fromkeys(["attn_layer_offset", "moe_layer_freq", "type_vocab_size"], 1),
    **{"vocab_size": 101, "v_head_dim": 12, "mamba_dt_rank": 4, "mamba_d_ssm": 64},
    **{"index_topk": 64, "index_head_dim": 8, "is_decoder": True, "shared_intermediate_size": 32},
}
# Not set where a configuration has none by itself.
OPTIONAL = ("n_inner", "q_lora_rank", "kv_lora_rank", "attention_hidden_size", "head_dim")
OPTIONAL += ("num_key_value_heads", "intermediate_size", "lru_width", "sliding_window")
ROPE = {"rope_type": "default", "rope_theta": 1e4}
BLT = {
    **{"hidden_size": 32, "hidden_size_global": 32, "num_attention_heads": 4, "head_dim": 8},
    **{"num_key_value_heads": 4, "intermediate_size": 64, "num_hidden_layers": 2},
    **{"vocab_size": 101},
}
OWN: dict[str, dict[str, Any]] = {
    "blt": {
        **{"encoder_hash_byte_group_vocab": 64, "encoder_hash_byte_group_size": [3]},
        **{f"{part}_config": BLT for part in ("patcher", "encoder", "decoder", "global")},
    },
    "bamba": {"attn_layer_indices": [1, 3]},
    "bailing_hybrid": {"linear_head_dim": 8, "linear_num_heads": 4, "num_key_value_heads": 4},
    "codegen": {"rotary_dim": 4},
    "cohere_compass_text": {
        "layer_types": ["full_attention", "sliding_attention"] * 2,
        "rope_parameters": dict.fromkeys(("full_attention", "sliding_attention"), ROPE),
    },
    "ctrl": {"dff": 64},
    "dbrx": {
        "attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 64},
    },
    "dots1": {
        **{"sliding_window": None, "num_experts_per_tok": 2, "n_shared_experts": 1},
        **{"n_routed_experts": 4, "layer_types": ["full_attention"] * 4},
    },
    "dots3_note_text": {"num_key_value_heads": 4, "head_dim": 8, "index_topk": 64},
    "falcon": {"alibi": False},
    "falcon (ALiBi)": {"alibi": True},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "gemma3n_text": {
        **{"intermediate_size": [64] * 4, "num_kv_shared_layers": 0, "laurel_rank": 8},
        **{"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 101},
        **{"activation_sparsity_pattern": [0.0] * 4},
    },
    "gemma4_text": {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 101},
    "gptj": {"rotary_dim": 4},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "kimi_linear": {"linear_head_dim": 8, "linear_num_heads": 4, "num_key_value_heads": 4},
    "longcat_flash": {"num_key_value_heads": 4, "head_dim": 8, "ffn_hidden_size": 64},
    "mamba2": {"num_heads": 4, "head_dim": 16},
    "ministral": {"head_dim": 8},
    "mixtral": {"sliding_window": None},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "qwen4_exp_text": {
        **{"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "hc_lowrank": 8},
        **{"indexer_budget": 64, "indexer_compress_ratio": 2, "ple_embed_dim": 32},
        **{"ngram_vocab_size_base": 101, "split_ngram_parts": 1},
    },
    "recurrent_gemma": {"num_hidden_layers": 6},
    "reformer": {
        **{"axial_pos_embds_dim": (16, 16), "axial_pos_shape": (16, 16), "feed_forward_size": 64},
        **{"attention_head_size": 8, "attn_layers": ("local", "lsh") * 2, "hash_seed": 0},
    },
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 24},
    "xlm": {"causal": True, "emb_dim": 32},
    "xlnet": {"d_head": 8, "d_inner": 64},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        **{"attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4},
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "zamba2": {
        **{"attention_hidden_size": 64, "attention_head_dim": 16},
        **{"mamba_headdim": 16, "n_mamba_heads": 4, "num_key_value_heads": 4, "adapter_rank": 8},
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"] * 2},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
}
LATENT = ("deepseek_v2", "deepseek_v3", "glm4_moe_lite", "kimi_linear", "longcat_flash", "youtu")
LATENT += ("bailing_hybrid", "dots3_note_text")
# Their layers follow from other settings.
DERIVED = ("bamba", "falcon_h1", "falcon_mamba", "jamba", "mamba", "mamba2", "recurrent_gemma")


def save_type(name: str, tokenizer: Path, folder: Path) -> None:
    """A model of a type with random weights that tell rows apart, and the tiny tokenizer.

    Args:
        name: Its `model_type`, which may have a variant in brackets behind it.
        tokenizer: A folder of a tiny model.
        folder: Where to.
    """
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    kind = CONFIG_MAPPING[name.partition(" ")[0]]
    stock = kind().get_text_config(decoder=True)
    known = set(vars(stock)) | set(type(stock).attribute_map)
    given = {key: size for key, size in SIZES.items() if key in known}
    given = {k: v for k, v in given.items() if k not in OPTIONAL or vars(stock).get(k) is not None}
    padding = getattr(stock, "pad_token_id", None)
    if padding is None or 0 <= padding < SIZES["vocab_size"]:
        given.pop("pad_token_id", None)
    if name in LATENT:
        given.pop("head_dim", None)
    if vars(stock).get("kv_lora_rank"):  # every head has a key of its own
        given["num_key_value_heads"] = 4
    types = list(dict.fromkeys(getattr(stock, "layer_types", None) or []))
    if types and name not in DERIVED:
        given["layer_types"] = [types[i % len(types)] for i in range(4)]
    config = type(stock)(**{**given, **OWN.get(name, {})})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        _spread(model)
    shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)


@torch.no_grad()
def _spread(model: nn.Module) -> None:
    """Larger weights: with the usual ones a tiny model hardly tells rows apart."""
    for name, parameter in model.named_parameters():
        if name.endswith("correct_output_scale"):  # 0 at first, so that nothing depends on tokens
            parameter.fill_(1)
        if parameter.ndim >= 2 and not name.endswith("A_log"):
            table = "embed" in name or "wte" in name
            parameter.normal_(0, 0.7 if table else 1.2 / parameter.shape[-1] ** 0.5)
