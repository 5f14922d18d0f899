"""The model types llama (RMSNorm, RoPE, SwiGLU), qwen3, which also normalises queries and keys, and a llama that
mixes neighbouring tokens, which mlx-lm has not and builds from the file llama_mixing.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from mlxstories.data.tokenizer import END
from mlxstories.export.model_type import Arrays, ModelType
from mlxstories.model import ModelConfig
from mlxstories.model.config import MOST_MIXING
from mlxstories.model.layers import EPS, ROPE_BASE

_BLOCK = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
_ACTIVATIONS = {"swiglu": "silu", "relu2": "relu2"}  # their names of the feed-forward parts
_NORMS = ("q_norm", "k_norm")  # of qwen3, whose weights ours has not: they are ones


def _names(config: ModelConfig) -> dict[str, str]:
    """Our name of each array, and theirs."""
    names = {"embed.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
    if not config.tied:
        names["head_projection.weight"] = "lm_head.weight"
    for layer in range(config.layers):
        for ours, theirs in _BLOCK.items():
            if ours == "feed_forward.gate" and config.feed_forward != "swiglu":
                continue
            names[f"blocks.{layer}.{ours}.weight"] = f"model.layers.{layer}.{theirs}.weight"
        if config.mixing > 1:
            names[f"blocks.{layer}.neighbours.taps"] = f"model.layers.{layer}.mixing.taps"
    return names


def _describe(config: ModelConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.dim,
        "num_hidden_layers": config.layers,
        "intermediate_size": config.hidden,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads,
        "head_dim": config.dim // config.heads,
        "max_position_embeddings": config.context,
        "rms_norm_eps": EPS,
        "hidden_act": _ACTIVATIONS[config.feed_forward],
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": config.tied,
        "rope_theta": ROPE_BASE,  # where mlx-lm looks
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_BASE},  # where transformers 5 looks
    }


def _export(arrays: Arrays, config: ModelConfig) -> Arrays:
    return {theirs: arrays[ours] for ours, theirs in _names(config).items()}


def _export_qwen3(arrays: Arrays, config: ModelConfig) -> Arrays:
    ones = mx.ones((config.dim // config.heads,))
    norms = (f"model.layers.{layer}.self_attn.{name}" for layer in range(config.layers) for name in _NORMS)
    return _export(arrays, config) | {f"{norm}.weight": ones for norm in norms}


def _restore(arrays: Arrays, config: ModelConfig) -> Arrays:
    for name, array in arrays.items():
        if name.endswith(tuple(f"{norm}.weight" for norm in _NORMS)) and not mx.all(array == 1):
            raise ValueError(f"{name} is not all ones, and queries and keys have no weights here")
    return {ours: arrays[theirs] for ours, theirs in _names(config).items()}


def _read(values: Mapping[str, Any]) -> ModelConfig:
    heads, dim = values["num_attention_heads"], values["hidden_size"]
    theta = values.get("rope_theta") or values.get("rope_parameters", {}).get("rope_theta")
    activation = values.get("hidden_act", "silu")
    squared = activation == "relu2" and values["model_type"] == "llama_mixing"  # a llama's would have a gate
    for name, found, wanted in (
        ("hidden_act", activation, "relu2" if squared else "silu"),
        ("num_key_value_heads", values.get("num_key_value_heads", heads), heads),
        ("head_dim", values.get("head_dim") or dim // heads, dim // heads),
        ("rms_norm_eps", values["rms_norm_eps"], EPS),
        ("rope_theta", theta, ROPE_BASE),
        ("attention_bias", values.get("attention_bias", False), False),
        ("rope_scaling", values.get("rope_scaling") or None, None),
    ):
        if found != wanted:
            raise ValueError(f"{name} is {found}, and models here have {wanted}")
    return ModelConfig(
        values["vocab_size"],
        dim=dim,
        layers=values["num_hidden_layers"],
        heads=heads,
        hidden=values["intermediate_size"],
        context=values["max_position_embeddings"],
        tied=values.get("tie_word_embeddings", True),
        qk_norm=values["model_type"] == "qwen3" or values.get("qk_norm", False),
        mixing=values.get("mixing", 1),
        feed_forward="swiglu" if activation == "silu" else "relu2",
        separator=END,
    )


def _describe_mixing(config: ModelConfig) -> dict[str, Any]:
    return {**_describe(config), "qk_norm": config.qk_norm, "mixing": config.mixing}


_PARTS = {"arch": "decoder", "norm": "rms", "positions": "rope", "feed_forward": "swiglu"}
LLAMA = ModelType(
    "llama",
    "LlamaForCausalLM",
    {**_PARTS, "qk_norm": False, "mixing": 1},
    refuses=lambda config: None,
    describe=_describe,
    export=_export,
    native=lambda arrays: arrays,
    restore=_restore,
    read=_read,
)
QWEN3 = dataclasses.replace(
    LLAMA,
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    parts={**_PARTS, "qk_norm": True, "mixing": 1},
    export=_export_qwen3,
)
LLAMA_MIXING = dataclasses.replace(
    LLAMA,
    model_type="llama_mixing",
    architecture="LlamaMixingForCausalLM",
    parts={**_PARTS, "feed_forward": tuple(_ACTIVATIONS), "mixing": tuple(range(2, MOST_MIXING + 1))},
    describe=_describe_mixing,
    code="llama_mixing.py",
)
