"""What single architectures of mlx-lm ask for beside the names that most of them share, or instead."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Size:
    """How large a model is to be; see `ModelConfig` for the names."""

    vocab_size: int
    layers: int
    dim: int
    heads: int
    hidden: int
    context: int

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads


def _both(one: str, other: str, size: Size) -> list[str]:
    """Two kinds of layer in turn."""
    return [(one, other)[layer % 2] for layer in range(size.layers)]


def _linear_attention(s: Size) -> dict[str, Any]:
    return {
        "kda_layers": list(range(1, s.layers, 2)),
        "full_attn_layers": list(range(2, s.layers + 1, 2)),
        "num_heads": s.heads,
        "head_dim": s.head_dim,
        "short_conv_kernel_size": 4,
        "gate_lower_bound": -5.0,
    }


_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_ROPES = {"full_attention": _ROPE, "sliding_attention": _ROPE}
_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 1.0, "mscale_all_dim": 0,
         "llama_4_scaling_beta": 0.1}  # fmt: skip
_CONVOLUTIONS = {"conv_bias": False, "conv_L_cache": 3, "block_multiple_of": 8,
                 "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": False}  # fmt: skip


def _delta_rule(s: Size) -> dict[str, Any]:
    return {
        "linear_num_value_heads": s.heads,
        "linear_num_key_heads": s.heads,
        "linear_key_head_dim": s.head_dim,
        "linear_value_head_dim": s.head_dim,
        "linear_conv_kernel_dim": 4,
        "partial_rotary_factor": 1.0,
        "full_attention_interval": 2,
    }


def _mamba(s: Size) -> dict[str, Any]:
    return {"mamba_n_heads": s.heads, "mamba_d_head": s.head_dim, "mamba_d_state": 16, "mamba_d_conv": 4,
            "mamba_n_groups": 1, "mamba_expand": 2, "mamba_proj_bias": False, "mamba_conv_bias": True,
            "mamba_d_ssm": s.dim, "mamba_num_heads": s.heads, "mamba_head_dim": s.head_dim,
            "ssm_state_size": 16, "state_size": 16, "conv_kernel": 4, "time_step_rank": 4}  # fmt: skip


def _sliding(s: Size) -> dict[str, Any]:
    return {"layer_types": _both("sliding_attention", "full_attention", s), "sliding_window_pattern": 2,
            "rope_parameters": _ROPES}  # fmt: skip


def _longcat(s: Size) -> dict[str, Any]:
    return {"mla_scale_q_lora": True, "mla_scale_kv_lora": True, "zero_expert_type": "identity"}


PECULIAR: dict[str, Callable[[Size], dict[str, Any]]] = {
    "afm7": lambda s: {"num_kv_reuse_layers": 1, "num_layers": s.layers},
    "cohere2": _sliding,
    "dbrx": lambda s: {
        "ffn_config": {"ffn_hidden_size": s.hidden, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": s.heads, "clip_qkv": 8.0, "rope_theta": 10000.0},
    },
    "deepseek_v2": lambda s: {"rope_scaling": {**_YARN, "type": "yarn"}},
    "exaone4": lambda s: {"rope_scaling": None, "sliding_window_pattern": None},
    "exaone_moe": lambda s: {"is_moe_layer": [layer > 0 for layer in range(s.layers)]},
    "falcon_h1": _mamba,
    "gear": _sliding,
    "gemma3": _sliding,
    "gemma3_text": _sliding,
    "gemma3n": lambda s: {
        **_sliding(s),
        "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": [0.0] * s.layers,
        "hidden_size_per_layer_input": 16,
        "altup_num_inputs": 2,
        "altup_active_idx": 0,
        "altup_coef_clip": 120.0,
        "altup_correct_scale": True,
        "final_logit_softcapping": 30.0,
    },
    "gemma4": lambda s: {**_sliding(s), "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 16},
    "gemma4_text": lambda s: {**_sliding(s), "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 16},
    "glm_moe_dsa": lambda s: {"rope_parameters": _ROPE, "scoring_func": "sigmoid", "topk_method": "noaux_tc"},
    "gpt_oss": lambda s: {"layer_types": _both("sliding_attention", "full_attention", s)},
    "granitemoehybrid": lambda s: {**_mamba(s), "layer_types": _both("mamba", "attention", s)},
    "hunyuan": lambda s: {
        "cla_share_factor": 1,
        "rope_scaling": {"alpha": 1.0, "factor": 1.0, "type": "dynamic"},
    },
    "jamba": lambda s: {
        **_mamba(s),
        "layers_block_type": _both("mamba", "attention", s),
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
    "kimi_k3": lambda s: {
        "linear_attn_config": _linear_attention(s),
        "attn_res_block_size": 1,
        "activation_situ_beta": 1.0,
        "activation_situ_linear_beta": 1.0,
    },
    "kimi_linear": lambda s: {"linear_attn_config": _linear_attention(s)},
    "lfm2": lambda s: {**_CONVOLUTIONS, "layer_types": _both("conv", "full_attention", s)},
    "lfm2-vl": lambda s: {**_CONVOLUTIONS, "full_attn_idxs": list(range(1, s.layers, 2))},
    "lfm2_moe": lambda s: {
        **_CONVOLUTIONS,
        "layer_types": _both("conv", "full_attention", s),
        "num_dense_layers": 1,
    },
    "llama4": lambda s: {
        "num_experts_per_tok": 1,
        "num_hidden_layers": max(4, s.layers),  # it asks for the cache of the fourth
        "attention_chunk_size": s.context,
        "interleave_moe_layer_step": 2,
        "rope_scaling": None,
        "use_qk_norm": True,
    },
    "llama4_text": lambda s: {"no_rope_layers": [1] * s.layers, "use_qk_norm": True},
    "longcat_flash": _longcat,
    "longcat_flash_ngram": _longcat,
    "mamba": lambda s: {**_mamba(s), "use_conv_bias": True},
    "mamba2": lambda s: {
        **_mamba(s),
        "head_dim": 2 * s.dim // s.heads,
        "intermediate_size": 2 * s.dim,
        "use_conv_bias": True,
        "time_step_limit": [0.001, 100.0],
    },
    "mellum": _sliding,
    "mimo_v2_flash": lambda s: {
        "hybrid_layer_pattern": _both(0, 1, s),
        "moe_layer_freq": _both(0, 1, s),
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "partial_rotary_factor": 1,
    },
    "minicpm3": lambda s: {
        "rope_scaling": {
            "original_max_position_embeddings": s.context,
            "short_factor": [1.0] * (s.head_dim // 4),
            "long_factor": [1.0] * (s.head_dim // 4),
        }
    },
    "minimax_m3_vl": lambda s: {"moe_layer_freq": _both(0, 1, s)},
    "ministral3": lambda s: {
        "rope_parameters": {**_YARN, "original_max_position_embeddings": s.context, "rope_type": "default"}
    },
    "mistral4": lambda s: {"rope_parameters": {**_YARN, "original_max_position_embeddings": s.context}},
    "muse_spark": lambda s: {
        "rope_parameters": _ROPE,
        "layer_rope_theta": [10000.0] * s.layers,
        "n_shared_experts": 0,
        "num_shared_experts": 0,
        "final_logit_softcapping": 30.0,
    },
    "nemotron-nas": lambda s: {
        "block_configs": [{"attention": {"n_heads_in_group": 1}, "ffn": {"ffn_mult": 2.0}}] * s.layers
    },
    "nemotron_h": lambda s: {**_mamba(s), "hybrid_override_pattern": _both("M", "*", s)},
    "olmo3": _sliding,
    "openelm": lambda s: {
        "num_query_heads": [s.heads] * s.layers,
        "num_kv_heads": [s.heads] * s.layers,
        "ffn_multipliers": [2.0] * s.layers,
        "ffn_dim_divisor": 8,
    },
    "phixtral": lambda s: {"num_vocab": s.vocab_size},
    "plamo": lambda s: {"n_shared_head": 1},
    "qwen": lambda s: {"kv_channels": s.head_dim, "intermediate_size": 2 * s.hidden},
    "qwen3_5": lambda s: {**_delta_rule(s), "num_experts": 0},
    "qwen3_5_moe": _delta_rule,
    "qwen3_next": _delta_rule,
    "recurrent_gemma": lambda s: {
        "block_types": ["recurrent", "attention"],
        "conv1d_width": 4,
        "logits_soft_cap": 30.0,
    },
    "spark2_5": _sliding,
}
