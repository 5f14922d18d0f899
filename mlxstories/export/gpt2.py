"""The model type gpt2: LayerNorm, learned positions, GELU in its tanh form.

Matrices are written [in, out], under the names of the original checkpoint, which mlx-lm and transformers both
read. Biases, which ours has not, are zeros. mlx-lm takes the feed-forward part to be 4 times as wide as the
stream; a narrower one is filled up with hidden units of weight zero, which add nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from mlxstories.data.tokenizer import END
from mlxstories.export.model_type import Arrays, ModelType
from mlxstories.model import ModelConfig
from mlxstories.model.layers import EPS

_ENDS = {"embed.weight": "wte.weight", "position.weight": "wpe.weight"}
_NORMS = {"attention_norm": "ln_1", "feed_forward_norm": "ln_2"}
_QKV = ("query", "key", "value")


def _norms(config: ModelConfig) -> dict[str, str]:
    names = {"norm": "ln_f"}
    for layer in range(config.layers):
        names |= {f"blocks.{layer}.{ours}": f"h.{layer}.{theirs}" for ours, theirs in _NORMS.items()}
    return {f"{a}.{kind}": f"{b}.{kind}" for a, b in names.items() for kind in ("weight", "bias")}


def _refuses(config: ModelConfig) -> str | None:
    if config.hidden > 4 * config.dim:
        return f"its feed-forward part may be 4 times the width: train with --hidden {4 * config.dim}"
    return None


def _describe(config: ModelConfig) -> dict[str, Any]:
    return {
        "n_embd": config.dim,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_inner": 4 * config.dim,
        "n_positions": config.context,
        "n_ctx": config.context,
        "layer_norm_epsilon": EPS,
        "activation_function": "gelu_new",
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": True,
    }


def _export(arrays: Arrays, config: ModelConfig) -> Arrays:
    written = {theirs: arrays[ours] for ours, theirs in (_ENDS | _norms(config)).items()}
    missing = 4 * config.dim - config.hidden
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}.", f"h.{layer}."
        qkv = mx.concatenate([arrays[f"{ours}attention.{name}.weight"] for name in _QKV])
        matrices = {
            "attn.c_attn": qkv,
            "attn.c_proj": arrays[f"{ours}attention.out.weight"],
            "mlp.c_fc": mx.pad(arrays[f"{ours}feed_forward.up.weight"], ((0, missing), (0, 0))),
            "mlp.c_proj": mx.pad(arrays[f"{ours}feed_forward.down.weight"], ((0, 0), (0, missing))),
        }
        for name, matrix in matrices.items():
            written[f"{theirs}{name}.weight"] = mx.contiguous(matrix.T)
            written[f"{theirs}{name}.bias"] = mx.zeros((len(matrix),))
    return written


def _native(arrays: Arrays) -> Arrays:
    return {f"model.{name}": _turned(name, array) for name, array in arrays.items()}


def _turned(name: str, array: mx.array) -> mx.array:
    """A matrix [in, out] as [out, in] or back; other arrays as they are."""
    return (
        mx.contiguous(array.T)
        if name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))
        else array
    )


def _restore(arrays: Arrays, config: ModelConfig) -> Arrays:
    if "model.wte.weight" in arrays:
        arrays = {name.removeprefix("model."): _turned(name, array) for name, array in arrays.items()}
    arrays = {name.removeprefix("transformer."): array for name, array in arrays.items()}
    for name, array in arrays.items():
        if name.endswith((".c_attn.bias", ".c_proj.bias", ".c_fc.bias")) and mx.any(array):
            raise ValueError(f"{name} is not zero, and matrices here have no biases")
    restored = {ours: arrays[theirs] for ours, theirs in (_ENDS | _norms(config)).items()}
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}.", f"h.{layer}."
        qkv = mx.split(arrays[f"{theirs}attn.c_attn.weight"].T, 3)
        for name, matrix in zip(_QKV, qkv, strict=True):
            restored[f"{ours}attention.{name}.weight"] = matrix
        restored[f"{ours}attention.out.weight"] = arrays[f"{theirs}attn.c_proj.weight"].T
        up, down = arrays[f"{theirs}mlp.c_fc.weight"].T, arrays[f"{theirs}mlp.c_proj.weight"].T
        restored[f"{ours}feed_forward.up.weight"] = up[: config.hidden]
        restored[f"{ours}feed_forward.down.weight"] = down[:, : config.hidden]
    return {name: mx.contiguous(array) for name, array in restored.items()}


def _read(values: Mapping[str, Any]) -> ModelConfig:
    if values["layer_norm_epsilon"] != EPS:
        raise ValueError(f"layer_norm_epsilon is {values['layer_norm_epsilon']}, and models here have {EPS}")
    return ModelConfig(
        values["vocab_size"],
        dim=values["n_embd"],
        layers=values["n_layer"],
        heads=values["n_head"],
        hidden=values.get("n_inner") or 4 * values["n_embd"],
        context=values["n_positions"],
        norm="layer",
        positions="learned",
        feed_forward="gelu",
        separator=END,
    )


GPT2 = ModelType(
    "gpt2",
    "GPT2LMHeadModel",
    {
        "arch": "decoder",
        "norm": "layer",
        "positions": "learned",
        "feed_forward": "gelu",
        "qk_norm": False,
        "mixing": 1,
        "tied": True,
    },
    refuses=_refuses,
    describe=_describe,
    export=_export,
    native=_native,
    restore=_restore,
    read=_read,
)
